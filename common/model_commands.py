"""Commands that server and clients share: use a finished model, and export it.

What needs PyTorch is imported where it is used, so that the other commands start at once.
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

if TYPE_CHECKING:
    import torch

    from common.classifier import Classifier

CHECKED_IMAGES = 16

console = Console(stderr=True)
ModelPath = Annotated[
    Path, typer.Argument(help="A finished workspace, its `model` folder, or a client's `aggregated`.")
]


def predict(
    model: ModelPath,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of CSV.")] = False,
) -> None:
    """Print path, class and confidence of each image as CSV or JSON; images per second go to the error stream."""
    from common.datasets.image_files import shown

    classifier = _load(model)
    problems: list[str] = []
    started = time.monotonic()
    rows = list(classifier.predict(_files(images, problems), problems))
    seconds = time.monotonic() - started
    named = [{"path": shown(path), "class": label, "confidence": round(value, 4)} for path, label, value in rows]
    if as_json:
        print(json.dumps(named, ensure_ascii=False, indent=2))
    else:
        table = csv.DictWriter(sys.stdout, ["path", "class", "confidence"], lineterminator="\n")
        table.writeheader()
        table.writerows(named)
    for problem in problems:
        console.print(f"[yellow]skipped:[/] {escape(problem)}", soft_wrap=True)
    console.print(f"{len(rows)} images, {len(rows) / max(seconds, 1e-9):.1f} a second")
    if problems or not rows:
        raise typer.Exit(1)


def export(
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, model.pt2 and labels.json.")],
    images: Annotated[
        list[Path] | None, typer.Option(help="Images to check on; else some of the workspace's, else noise.")
    ] = None,
) -> None:
    """Write the model as ONNX and as a torch.export program: uint8 images in, probabilities out."""
    from common.export import ExportError
    from common.export import export as write_export

    classifier = _load(model)
    batches = _batches(
        images or [folder for folder in (model / "synthetic", model.parent / "synthetic") if folder.is_dir()]
    )
    try:
        difference = write_export(classifier, out, batches)
    except (ExportError, OSError) as error:
        raise _failure(str(error)) from None
    console.print(f"{out}: equal to torch within {difference:.1g} on {sum(map(len, batches))} images", soft_wrap=True)


def _load(path: Path) -> "Classifier":
    from common.classifier import ModelError, load

    try:
        return load(path)
    except ModelError as error:
        raise _failure(str(error)) from None


def _files(paths: list[Path], problems: list[str]) -> list[Path]:
    from common.datasets.image_files import walk

    return [file for path in paths for file in (sorted(walk(path, problems)) if os.path.isdir(path) else [path])]


def _batches(paths: list[Path]) -> "list[torch.Tensor]":
    """Up to 16 images, one a batch, or noise of three sizes: uint8 (N, 3, H, W)."""
    import torch

    from common.datasets.image_files import ImageError, read_image

    try:
        batches = [read_image(path)[None] for path in _files(paths, [])[:CHECKED_IMAGES]]
    except ImageError as error:
        raise _failure(f"an image to check on cannot be used: {error}") from None
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 3, 32, 32), (3, 3, 97, 61), (2, 3, 11, 200))
    return batches or [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]


def _failure(sentence: str) -> typer.Exit:
    console.print(f"[red]{escape(sentence)}[/]", soft_wrap=True)
    return typer.Exit(1)
