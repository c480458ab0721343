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
from common.preprocessing import PreprocessSpec

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.callback()
def main() -> None:
    """FedLMG on a client: your images stay in their folder."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Image folder: one sub-folder for each class.")],
    image_size: Annotated[int, typer.Option(help="Pixels on a side that the federation uses.")] = 32,
) -> None:
    """Say what training would find in a folder: classes, images in each split, sizes, unreadable files."""
    try:
        data = folders.load(folder.expanduser(), image_size)
    except folders.FolderError as error:
        raise _failure(str(error)) from None
    table = Table("class", *(f"{split} images" for split in data.splits))
    for index, name in enumerate(data.class_names):
        table.add_row(escape(name), *(str(int((part.labels == index).sum())) for part in data.splits.values()))
    console.print(table)
    (small, large) = min(data.sizes), max(data.sizes)
    console.print(f"Sizes in pixels: {small[0]} x {small[1]} to {large[0]} x {large[1]}, read as {image_size} squares")
    for problem in data.problems:
        console.print(f"[yellow]skipped:[/] {escape(problem)}", soft_wrap=True)


@app.command()
def predict(
    model_folder: Annotated[Path, typer.Argument(help="The returned model: `aggregated` in the client's cache.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    builder: Annotated[str, typer.Option(help="Builder `package.module:function` that the model may name.")] = "",
) -> None:
    """Print the class and the confidence of each image."""
    try:
        description = json.loads((model_folder / "model.json").read_text())
        arrays, _ = read_tensors(model_folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise _failure(f"{model_folder} is no model folder (model.json and model.safetensors): {error}") from None
    preprocess = PreprocessSpec.from_json(description["preprocessing"])
    num_classes = len(description["class_names"])
    try:
        model = architectures.build(description["architecture"], num_classes, preprocess.image_size, {builder})
    except ValueError as error:
        raise _failure(str(error)) from None
    model.load_state_dict(arrays)
    model.float().eval()
    unreadable = 0
    for path in images:
        try:
            pixels = folders.read_image(path)
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
