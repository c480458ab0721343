"""Opening many image files once: what each shows, and a use of its pixels. No PyTorch."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.datasets.readers.image_files import ImageError, NotNowError, Picture, read_pictures

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Found:
    """What is known of a file's picture beside its pixels."""

    size: tuple[int, int]
    """Width and height in pixels of the upright picture."""
    has_more_pages: bool
    """Whether the file holds other pages or frames, which are not read."""
    grey_bits: int | None
    """Bits per pixel as which grey values of more than 8 bits were read; None for other pictures."""
    checksum: str
    """sha256 of the picture's shape and pixels, before it is resized."""

    @classmethod
    def of(cls, picture: Picture) -> "Found":
        height, width, _ = picture.pixels.shape
        digest = hashlib.sha256(f"{(3, height, width)}".encode())
        digest.update(np.ascontiguousarray(picture.pixels.transpose(2, 0, 1)).data)
        return cls(picture.size, picture.has_more_pages, picture.grey_bits, digest.hexdigest())


@dataclass(frozen=True)
class Pictures:
    """What a list of files shows."""

    found: dict[Path, Found]
    """Of the files that can be read, in their order."""
    unreadable: dict[Path, str]
    """The other files -> why they give no image."""
    is_lasting: bool = True
    """Whether none of the unreadable files may be read another time."""
    doubts: list[str] = field(default_factory=list)
    """One line for each thing that the owner of the files should look at."""


def look_at(
    paths: list[Path],
    max_megapixels: float,
    use: Callable[[Picture], Any] = lambda picture: None,
    take: Callable[[int, Any], object] = lambda number, used: None,
) -> Pictures:
    """Open every file; `take` gets the number of each picture, counted without the unreadable files, and what `use`
    made of it.

    `use` is called by several threads at once, `take` by this one, in the order of the files. What takes long is told
    every `SECONDS_BETWEEN_LINES`.
    """
    found, unreadable, is_lasting = dict[Path, Found](), dict[Path, str](), True
    started = told = time.monotonic()
    looks = read_pictures(paths, max_megapixels, lambda picture: (Found.of(picture), use(picture)))
    for path, look in zip(paths, looks, strict=True):
        if isinstance(look, ImageError):
            unreadable[path] = str(look)
            is_lasting &= not isinstance(look, NotNowError)
        else:
            take(len(found), look[1])
            found[path] = look[0]
        if (now := time.monotonic()) - told >= SECONDS_BETWEEN_LINES:
            done, told = len(found) + len(unreadable), now
            left = (now - started) / done * (len(paths) - done)
            print(f"opened {done} of {len(paths)} images, {left:.0f} s left", flush=True)
    return Pictures(found, unreadable, is_lasting)
