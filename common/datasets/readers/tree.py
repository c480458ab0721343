"""The folders below a path with their image files, links followed; and why a file that lies there is not used."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from common.datasets.readers.image_files import is_image, printable_path
from common.datasets.readers.words import is_litter


@dataclass(frozen=True)
class Reason:
    """Why a file is not used.

    text: follows the file's name and a colon, or where files are counted together, `12 files`.
    """

    text: str
    told: Literal["each", "by folder", "together"] = "each"


LITTER = Reason("of systems and tools, or hidden", "together")
LeftOut = dict[Path, Reason]
"""File or folder -> why it is not used."""


@dataclass(eq=False)
class Folder:
    """One folder; litter is in none of its lists but `left_out`."""

    path: Path
    images: list[Path] = field(default_factory=list)
    """Files with the suffix of an image, sorted."""
    others: list[Path] = field(default_factory=list)
    """Other regular files."""
    folders: list["Folder"] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=dict)
    """Whatever else lies here -> why it is not used."""

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def has_images(self) -> bool:
        """Whether there is an image file here or at any depth below."""
        return bool(self.images) or any(folder.has_images for folder in self.folders)

    def walk(self) -> Iterator["Folder"]:
        """This folder and all below, in the order in which they are read."""
        yield self
        for folder in self.folders:
            yield from folder.walk()


def scan(path: Path, above: frozenset[str] = frozenset()) -> Folder:
    """Look through a folder and all below; a folder that cannot be listed, or leads in a circle, becomes a reason."""
    folder, here = Folder(path), os.path.realpath(path)
    above |= {here}
    try:
        paths = sorted(path.iterdir())
    except OSError as error:
        folder.left_out[path] = Reason(f"it cannot be listed ({error.strerror})")
        return folder
    for child in paths:
        if is_litter(child.name):
            folder.left_out |= dict.fromkeys(_files(child), LITTER)
        elif os.path.isdir(child):
            if (target := os.path.realpath(child)) in above or here.startswith(target + os.sep):
                folder.left_out[child] = Reason("it is a link to a folder that contains it")
            else:
                folder.folders.append(scan(child, above))
        elif os.path.exists(child) and not os.path.isfile(child):
            folder.left_out[child] = Reason("it is not a regular file")
        else:
            (folder.images if is_image(child) else folder.others).append(child)
    return folder


def list_images(path: Path, left_out: LeftOut) -> list[Path]:
    """The image files at any depth below a folder, sorted; everything else is entered in `left_out` with a reason."""
    images = []
    for folder in scan(path).walk():
        images += folder.images
        left_out |= folder.left_out | {file: not_an_image(file) for file in folder.others}
    return sorted(images)


def not_an_image(file: Path) -> Reason:
    """Why a file without the suffix of an image is not used."""
    return Reason(f"{file.suffix.lower() or 'without suffix'}, not read as images", "by folder")


def describe(left_out: Mapping[Path, Reason], root: Path) -> list[str]:
    """One line for each file or group of files; their names are relative to `root`."""
    lines, groups = [], Counter[tuple[str, str]]()
    for path, reason in left_out.items():
        if reason.told == "each":
            lines.append(f"{_relative(path, root)}: {reason.text}")
        else:
            groups[f"{_relative(path.parent, root)}: " if reason.told == "by folder" else "", reason.text] += 1
    return sorted(lines) + [
        f"{where}{count} file{'s' if count > 1 else ''} {text}" for (where, text), count in sorted(groups.items())
    ]


def _relative(path: Path, root: Path) -> str:
    return printable_path(Path(os.path.relpath(path, root)))


def _files(path: Path) -> list[Path]:
    """A file, or all files below a folder; links to folders are not followed, and count as one file."""
    if not os.path.isdir(path) or os.path.islink(path):
        return [path]
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
