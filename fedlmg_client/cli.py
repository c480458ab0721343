"""`fedlmg-client`: check a folder of images, use the model that came back."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common import architectures
from common.checkpoint import read_tensors
from common.datasets import folders
from common.datasets.image_files import read_image
from common.datasets.listing import FolderError
from common.preprocessing import PreprocessSpec

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

MAX_LINES = 20
"""Printed of each kind of finding."""


@app.callback()
def main() -> None:
    """FedLMG on a client: your images stay in their folder."""


@app.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(help="What `data-path` will name: an image folder, a CSV table or a list; `#PART` takes one."),
    ],
    image_size: Annotated[int, typer.Option(help="Pixels on a side that the federation uses.")] = 32,
    allow_outside: Annotated[bool, typer.Option(help="Follow links and paths that leave the folder.")] = False,
) -> None:
    """Say what training would find in a folder: its layout, classes, splits and sizes, and what is wrong with it."""
    try:
        data = folders.load(folder.expanduser(), image_size, allow_outside)
    except FolderError as error:
        raise _failure(str(error)) from None
    counts = {split: part.labels.bincount(minlength=len(data.class_names)) for split, part in data.splits.items()}
    table = Table("class", *counts, title=escape(data.layout), show_footer=True)
    for column, total in zip(table.columns, ("total", *map(len, data.splits.values())), strict=True):
        column.footer = str(total)
    for index, name in enumerate(data.class_names):
        table.add_row(escape(name), *(str(int(count[index])) for count in counts.values()))
    console.print(table)
    widths, heights = zip(*data.sizes, strict=True)
    console.print(
        f"{len(data.class_names)} classes; {len(data.sizes)} sizes, {min(widths)} to {max(widths)} pixels wide and "
        f"{min(heights)} to {max(heights)} high, read as {image_size} squares"
    )
    _print_lines("skipped", data.problems)
    _print_lines("look at", data.warnings)


def _print_lines(kind: str, lines: list[str]) -> None:
    for line in lines[:MAX_LINES]:
        console.print(f"[yellow]{kind}:[/] {escape(line)}", soft_wrap=True)
    if len(lines) > MAX_LINES:
        console.print(f"[yellow]{kind}:[/] {len(lines) - MAX_LINES} more")


@app.command()
def predict(
    model_folder: Annotated[Path, typer.Argument(help="The returned model: `aggregated` in the client's cache.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
) -> None:
    """Print the class and the confidence of each image."""
    try:
        description = json.loads((model_folder / "model.json").read_text())
        arrays, _ = read_tensors(model_folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise _failure(f"{model_folder} is no model folder (model.json and model.safetensors): {error}") from None
    preprocess = PreprocessSpec.from_json(description["preprocessing"])
    model = architectures.build(description["architecture"], len(description["class_names"]))
    model.load_state_dict(arrays)
    model.float().eval()
    unreadable = 0
    for path in images:
        try:
            pixels = read_image(path)
        except (OSError, ValueError, SyntaxError) as error:
            console.print(f"[red]{escape(str(path))} cannot be read:[/] {escape(str(error))}", soft_wrap=True)
            unreadable += 1
            continue
        with torch.inference_mode():
            confidence, label = model(preprocess(pixels[None].float() / 255)).softmax(1)[0].max(0)
        print(f"{path}\t{description['class_names'][int(label)]}\t{confidence.item():.3f}")
    if unreadable:
        raise typer.Exit(1)


def _failure(sentence: str) -> typer.Exit:
    console.print(f"[red]{escape(sentence)}[/]", soft_wrap=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
