"""Commands of the server and of clients that use a finished model: classify images, export.

PyTorch is imported inside the functions that need it, so that other commands start at once.
"""

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common.config.node import MAX_MEGAPIXELS
from common.reading_options import MaxMegapixels
from common.terminal import is_lossless, print_failure

if TYPE_CHECKING:
    import torch

    from common.models.predictor import Classifier

CHECKED_IMAGES = 400
"""The most images on which an exported model is checked."""
CHECKED_PIXELS = 512
"""Longest side of each of them; a larger image is shrunk."""

console = Console(stderr=True)
ModelPath = Annotated[Path, typer.Argument(help="A finished workspace, its folder `model`, or a client's cache.")]
Builder = Annotated[
    str | None, typer.Option(help="package.module:function that builds the model, if the architecture is your own.")
]


def predict(
    model: ModelPath,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of images.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of CSV.")] = False,
    builder: Builder = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
) -> None:
    """Classify images: print path, class and confidence of each as CSV or JSON; the speed goes to the error stream."""
    from common.datasets.readers.image_files import printable_path

    classifier = _load(model, builder)
    notes: list[str] = []
    problems: list[str] = []
    files = _files(images, notes, problems)
    started = time.monotonic()
    rows = list(classifier.predict(files, problems, max_megapixels))
    seconds = time.monotonic() - started
    named = [
        {"path": printable_path(path), "class": label, "confidence": round(value, 4)} for path, label, value in rows
    ]
    if as_json:
        text = json.dumps(named, ensure_ascii=False, indent=2)
        print(text if is_lossless(text) else json.dumps(named, indent=2))
    else:
        table = csv.DictWriter(sys.stdout, ["path", "class", "confidence"], lineterminator="\n")
        table.writeheader()
        table.writerows(named)
        if not is_lossless("".join(f"{row['path']}{row['class']}" for row in named)):
            console.print(
                f"[yellow]note:[/] some names do not fit the output's encoding, {sys.stdout.encoding}, and are "
                "escaped: set the environment variable PYTHONIOENCODING to utf-8",
                soft_wrap=True,
            )
    for problem in notes + problems:
        console.print(f"[yellow]skipped:[/] {escape(problem)}", soft_wrap=True)
    console.print(f"{len(rows)} images, {len(rows) / max(seconds, 1e-9):.1f} images per second")
    if problems or not rows:
        raise typer.Exit(1)


def export(
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, model.int8.onnx, model.pt2 and labels.json.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Images on which to check the export, best in folders named by class. Default: the workspace's "
            "synthetic images, or noise if there are none."
        ),
    ] = None,
    builder: Builder = None,
) -> None:
    """Export a model as ONNX (float32 and INT8) and as a torch.export program: uint8 images in, probabilities out."""
    from common.models.export import ExportError
    from common.models.export import export as write_export

    classifier = _load(model, builder)
    synthetic = [folder for folder in (model / "synthetic", model.parent / "synthetic") if folder.is_dir()]
    batches, labels = _batches(images or synthetic, classifier.class_names)
    try:
        difference, cost = write_export(classifier, out, batches, labels)
    except (ExportError, OSError) as error:
        raise print_failure(console, error) from None
    num_images = sum(map(len, batches))
    console.print(f"{out}: differs from PyTorch by at most {difference:.1g} on {num_images} images", soft_wrap=True)
    accuracy = "" if labels is None else f", accuracy {cost.float_accuracy:.1%} -> {cost.int8_accuracy:.1%}"
    size = f"{cost.int8_bytes / 1e6:.2f} MB instead of {cost.float_bytes / 1e6:.2f}"
    same = f"the same class as float32 for {cost.same_class:.1%} of {cost.num_images} images"
    console.print(f"INT8: {size}, {same}{accuracy}")


def _load(path: Path, builder: str | None) -> "Classifier":
    from common.models.predictor import ModelError, load_classifier

    try:
        return load_classifier(path, builder)
    except ModelError as error:
        raise print_failure(console, error) from None


def _files(paths: list[Path], notes: list[str], problems: list[str]) -> list[Path]:
    """The images that the paths name. `notes` gets a line about litter, `problems` about all else that is not used."""
    from common.datasets.readers.image_files import printable_path
    from common.datasets.readers.tree import LITTER, LeftOut, describe, list_images

    files: list[Path] = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        left_out = LeftOut()
        found = list_images(path, left_out)
        notes += describe({file: reason for file, reason in left_out.items() if reason is LITTER}, path)
        problems += describe({file: reason for file, reason in left_out.items() if reason is not LITTER}, path)
        if not found:
            problems.append(f"no image below {printable_path(path)}: name another folder")
        files += found
    return files


def _batches(paths: list[Path], class_names: list[str]) -> "tuple[list[torch.Tensor], list[int] | None]":
    """Up to 400 evenly chosen images, one in each batch, uint8 (1, 3, H, W), no side longer than 512 pixels, and their
    class indices.

    The classes come from the names of the images' folders; they are None if any folder is not named by a class. Without
    images, the batches are noise of three sizes. Images that cannot be read are told and passed over.
    """
    import torch
    from torchvision.transforms.v2.functional import resize

    from common.datasets.readers.image_files import ImageError, printable_path, read_image
    from common.names import safe_name

    problems: list[str] = []
    files = _files(paths, [], problems)
    for problem in problems:
        console.print(f"[yellow]skipped:[/] {escape(problem)}", soft_wrap=True)
    files = files[:: max(1, len(files) // CHECKED_IMAGES)][:CHECKED_IMAGES]
    batches, folders = [], []
    for path in files:
        try:
            image = read_image(path)[None]
        except ImageError as error:
            console.print(f"[yellow]skipped:[/] {escape(f'{printable_path(path)}: {error}')}", soft_wrap=True)
            continue
        if (longer := max(image.shape[2:])) > CHECKED_PIXELS:
            height, width = (max(1, round(side * CHECKED_PIXELS / longer)) for side in image.shape[2:])
            image = resize(image, [height, width], antialias=True)
        batches.append(image)
        folders.append(path.parent.name)
    if files and not batches:
        raise print_failure(console, "none of the images for the check of the export can be read: name others")
    index = {spelling: i for i, name in enumerate(class_names) for spelling in (name, safe_name(name))}
    if paths and not batches:
        console.print("The export is checked on noise, for there are no images.")
    if batches:
        return batches, [index[name] for name in folders] if set(folders) <= set(index) else None
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 3, 32, 32), (3, 3, 97, 61), (2, 3, 11, 200))
    return [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes], None
