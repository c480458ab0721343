"""What the owner of a folder of images should look at, although it is used."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from common.datasets.readers.listing import Entry
from common.datasets.readers.pictures import Found

TINY_CLASS = 5
"""A class with fewer training images gets a warning."""
EMPTY = {
    "validation": "training keeps its last weights",
    "test": "nobody can measure how well a model reads your images",
}
"""Split -> what it means that it has no images."""


def find_doubts(
    counts: Mapping[str, Counter[str]],
    class_names: list[str],
    entries: list[Entry],
    found: Mapping[Path, Found],
    root: Path,
) -> list[str]:
    """One line for each empty split, kind of odd picture, duplicate and class with few images.

    counts: split -> class name -> number of images.
    """
    empty = [f"there are no {split} images: {line}" for split, line in EMPTY.items() if not counts[split]]
    small = _small_classes(counts["train"], class_names)
    return [*empty, *_odd_pictures(entries, found, root), *_duplicates(entries, found, root), *small]


def _odd_pictures(entries: list[Entry], found: Mapping[Path, Found], root: Path) -> list[str]:
    """One line for each kind of picture of which less was read than it holds, or in another way than it is stored."""
    lines = []
    if paged := [entry for entry in entries if found[entry.path].has_more_pages]:
        others = f", and so have {len(paged) - 1} others" if len(paged) > 1 else ""
        lines.append(
            f"{paged[0].name_below(root)} has several pages or frames, of which only the first is read{others}"
        )
    depths = Counter(picture.grey_bits for picture in found.values() if picture.grey_bits)
    if depths.keys() - {16}:
        shown = ", ".join(f"{depths[bits]} as {bits} bits" for bits in sorted(depths))
        lines.append(f"grey images are read by as many bits as their values need, which keeps contrast: {shown}")
    return lines


def _duplicates(entries: list[Entry], found: Mapping[Path, Found], root: Path) -> list[str]:
    """One line for each image whose pixels also occur in another split or under another class."""
    lines = []
    counts = Counter(picture.checksum for picture in found.values())
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if counts[checksum := found[entry.path].checksum] > 1:
            groups[checksum].append(entry)
    for first, *others in groups.values():
        for other in others:
            same = f"{other.name_below(root)} has the same pixels as {first.name_below(root)}"
            if other.label != first.label:
                lines.append(f"{same}, which is another class")
            elif other.split != first.split:
                lines.append(f"{same}: one is in {other.split}, the other in {first.split}")
    return lines


def _small_classes(train: Counter[str], class_names: list[str]) -> list[str]:
    tiny = [name for name in class_names if train[name] < TINY_CLASS]
    return [f"class '{name}' has only {train[name]} training images" for name in tiny]
