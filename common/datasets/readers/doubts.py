"""What the owner of a folder of images should look at, although it is used."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from common.datasets.labeled_images import LabeledImages
from common.datasets.readers.image_files import Picture
from common.datasets.readers.listing import Entry

TINY_CLASS = 5
"""A class with fewer training images gets a warning."""
EMPTY = {
    "validation": "training keeps its last weights",
    "test": "nobody can measure how well a model reads your images",
}
"""Split -> what it means that it has no images."""


def find_doubts(
    splits: Mapping[str, LabeledImages],
    class_names: list[str],
    pictures: Mapping[Entry, Picture],
    same_pixels: Iterable[list[Entry]],
    root: Path,
) -> list[str]:
    """One line for each empty split, kind of odd picture, duplicate and class with few images.

    same_pixels: groups of files with the same pixels.
    """
    empty = [f"there are no {split} images: {line}" for split, line in EMPTY.items() if not len(splits[split])]
    small = _small_classes(splits["train"], class_names)
    return [*empty, *_odd_pictures(pictures, root), *_duplicates(same_pixels, root), *small]


def _odd_pictures(pictures: Mapping[Entry, Picture], root: Path) -> list[str]:
    """One line for each kind of picture of which less was read than it holds, or in another way than it is stored."""
    lines = []
    if paged := [entry for entry, picture in pictures.items() if picture.has_more_pages]:
        others = f", and so have {len(paged) - 1} others" if len(paged) > 1 else ""
        lines.append(
            f"{paged[0].name_below(root)} has several pages or frames, of which only the first is read{others}"
        )
    depths = Counter(picture.grey_bits for picture in pictures.values() if picture.grey_bits)
    if depths.keys() - {16}:
        shown = ", ".join(f"{depths[bits]} as {bits} bits" for bits in sorted(depths))
        lines.append(f"grey images are read by as many bits as their values need, which keeps contrast: {shown}")
    return lines


def _duplicates(groups: Iterable[list[Entry]], root: Path) -> list[str]:
    """One line for each image whose pixels also occur in another split or under another class."""
    lines = []
    for first, *others in groups:
        for other in others:
            same = f"{other.name_below(root)} has the same pixels as {first.name_below(root)}"
            if other.label != first.label:
                lines.append(f"{same}, which is another class")
            elif other.split != first.split:
                lines.append(f"{same}: one is in {other.split}, the other in {first.split}")
    return lines


def _small_classes(train: LabeledImages, class_names: list[str]) -> list[str]:
    counts = torch.bincount(train.labels, minlength=len(class_names)).tolist()
    return [f"class '{name}' has only {count} training images"
            for name, count in zip(class_names, counts, strict=True) if count < TINY_CLASS]  # fmt: skip
