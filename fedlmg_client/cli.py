"""`fedlmg-client`: check a folder of images, use the model that came back and see how good it is here."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common import model_commands
from common.datasets import folders
from common.datasets.listing import FolderError
from common.files import write_bytes

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
def report(
    cache: Annotated[
        Path, typer.Argument(help="The client's `cache-path`; without one, `~/.cache/fedlmg/<name>`.", metavar="CACHE")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; without it `report.html` in CACHE.")] = None,
) -> None:
    """Write a page about this client alone: its own model, the one that came back, and what that takes for what."""
    from fedlmg_client import page

    out = out or cache / "report.html"
    try:
        write_bytes(out, page.render(cache.expanduser()).encode())
    except (page.PageError, OSError) as error:
        raise _failure(str(error)) from None
    console.print(f"Report: {escape(str(out))}", soft_wrap=True)


app.command()(model_commands.predict)
app.command()(model_commands.export)


def _failure(sentence: str) -> typer.Exit:
    console.print(f"[red]{escape(sentence)}[/]", soft_wrap=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
