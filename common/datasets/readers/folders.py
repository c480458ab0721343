"""A client's own images: those of its `data-path` as labelled square images in three splits."""

from dataclasses import dataclass
from pathlib import Path

import torch

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.datasets.labeled_images import LabeledView
from common.datasets.readers.contents import SPLITS, Contents, read_contents
from common.datasets.readers.listing import Entry
from common.datasets.readers.pictures import Pictures
from common.datasets.readers.squares import read_squares
from common.storage.images import ImageView, Source


@dataclass(frozen=True)
class ImageFolder(Contents):
    """The images of a folder."""

    splits: dict[str, LabeledView]
    """Labels index `class_names`."""


def load(
    path: Path,
    image_size: int,
    allow_outside: bool = False,
    most_per_class: int | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    cache: Path | None = None,
    most_gigabytes: float = IMAGE_GIGABYTES,
) -> ImageFolder:
    """Read train, validation and test images and resize them to squares of `image_size` pixels.

    Parameters
    ----------
    allow_outside, most_per_class: see `contents.py`.
    max_megapixels: the most million pixels of an image; a larger one is skipped.
    cache, most_gigabytes: where the squares of many images are kept (see `squares.py`).

    Raises
    ------
    FolderError: the path has no known layout, or a class has no readable image.
    """
    images, owner = list[Source](), f"{path.absolute()} {most_per_class}"

    def read(paths: list[Path]) -> Pictures:
        squares, pictures = read_squares(paths, image_size, max_megapixels, cache, most_gigabytes, owner)
        images.append(squares)
        return pictures

    held = read_contents(path, read, allow_outside, most_per_class)
    splits = {split: _view(images[0], held.entries, split, held.class_names) for split in SPLITS}
    return ImageFolder(**vars(held), splits=splits)


def _view(images: Source, entries: list[Entry], split: str, class_names: list[str]) -> LabeledView:
    """The images of one split, sorted by class; `entries` name the images row by row."""
    index = {name: number for number, name in enumerate(class_names)}
    numbers = [index.get(entry.label, -1) if entry.split == split else -1 for entry in entries]
    labels, rows = torch.tensor(numbers, dtype=torch.int64).sort(stable=True)
    return LabeledView(ImageView((images,), rows[labels >= 0]), labels[labels >= 0])
