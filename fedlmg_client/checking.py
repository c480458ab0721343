"""What `fedlmg-client check` shows of a folder of images, and what comes next."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.config.node import MAX_MEGAPIXELS
from common.datasets.readers.contents import LEAST_IMAGES, Contents
from common.terminal import print_failure

MAX_LINES = 20
"""At most this many lines are printed of each kind of finding."""


def show(
    data: Contents, folder: Path, image_size: int, allow_outside: bool, max_megapixels: float, console: Console
) -> None:
    """Print classes, splits and sizes, what is skipped, what to look at, and in one last line what to do next.

    Raises
    ------
    typer.Exit: there are too few images to train.
    """
    table = Table("class", *data.counts, title=escape(data.layout), show_footer=True)
    for column, total in zip(table.columns, ("total", *(each.total() for each in data.counts.values())), strict=True):
        column.footer = str(total)
    for name in data.class_names:
        table.add_row(escape(name), *(str(each[name]) for each in data.counts.values()))
    console.print(table)
    widths, heights = zip(*data.sizes, strict=True)
    sizes = "1 image size" if len(data.sizes) == 1 else f"{len(data.sizes)} image sizes"
    console.print(
        f"{_count(data.class_names)}; {sizes}, {min(widths)} to {max(widths)} pixels wide "
        f"and {min(heights)} to {max(heights)} pixels high; training resizes them to {image_size} x {image_size} pixels"
    )
    _print_lines("skipped", data.problems, console)
    _print_lines("look at", data.warnings, console)
    if (num_train := data.counts["train"].total()) < LEAST_IMAGES:
        raise print_failure(console, f"training needs at least {LEAST_IMAGES} images, but has {num_train}: add images")
    files = "1 file is" if data.num_left_out == 1 else f"{data.num_left_out} files are"
    left_out = f"{files} left out, see above" if data.num_left_out else "no file is left out"
    outside = " --allow-outside" if allow_outside else ""
    pixels = "" if max_megapixels == MAX_MEGAPIXELS else f" --max-megapixels {max_megapixels:g}"
    console.print(
        f"{data.num_images} images of {_count(data.class_names)} will be used; {left_out}; the next command is "
        f"{escape(f'fedlmg-client join HOST --data {shlex.quote(str(folder))}{outside}{pixels}')}",
        soft_wrap=True,
        highlight=False,
    )


def _count(class_names: list[str]) -> str:
    return f"{len(class_names)} class{'es' if len(class_names) > 1 else ''}"


def _print_lines(kind: str, lines: list[str], console: Console) -> None:
    for line in lines[:MAX_LINES]:
        console.print(f"[yellow]{kind}:[/] {escape(line)}", soft_wrap=True)
    if len(lines) > MAX_LINES:
        console.print(f"[yellow]{kind}:[/] {len(lines) - MAX_LINES} more")
