"""A client's own images: from whatever layout its `data-path` has to labelled squares in three splits.

Layouts: class folders with or without splits or domains (`class_folders.py`), list files (`list_files.py`), CSV tables
(`csv_files.py`). `data-path` names a folder, a list or a table; `#PART` behind it takes one domain (`PACS#sketch`,
`NICO_unique#2`). Where the layout gives no splits every class is split 70/10/20 in the order of a hash of the files'
relative paths: no seed, and the same on every machine.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.datasets.labeled_images import LabeledImages
from common.datasets.readers import class_folders, csv_files, list_files
from common.datasets.readers.image_files import ImageError, printable_path, read_image
from common.datasets.readers.listing import Entry, FolderError, Listing, check_distinct_in_case
from common.vision.preprocessing import PreprocessSpec

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
TINY_CLASS = 5
"""Fewer training images than this are warned of."""


@dataclass(frozen=True)
class ImageFolder:
    """Labels index `class_names`, which are sorted."""

    layout: str
    """For the user."""
    class_names: list[str]
    splits: dict[str, LabeledImages]
    sizes: dict[tuple[int, int], int]
    """(width, height) of the images on disk -> how many."""
    fingerprint: str
    """sha256 over relative path, size in bytes, class and split of every file."""
    problems: list[str]
    """One line for each image, or group of files, that was skipped."""
    warnings: list[str]
    """Duplicates, and classes with few images; nothing was left out for them."""


def load(path: Path, image_size: int, allow_outside: bool = False, most_per_class: int | None = None) -> ImageFolder:
    """Read train, validation and test images of `image_size` pixels on a side.

    `allow_outside` follows links and paths that leave the folder; without it such images are skipped. Of each class at
    most `most_per_class` training images are read, the first by the hash of their paths.

    Raises
    ------
    FolderError: nothing there that has a known layout, or a class without a readable image.
    """
    try:
        listing = find_listing(path.absolute())
    except OSError as error:
        raise FolderError(f"{printable_path(path)} cannot be read: {error.strerror}") from None
    root = listing.root
    check_distinct_in_case({entry.label for entry in listing.entries} | set(listing.empty_classes), root)
    problems = [problem.replace(f"{printable_path(root)}{os.sep}", "") for problem in listing.problems]
    entries = _with_splits(_inside(listing, problems, allow_outside), root)
    if most_per_class is not None:
        entries = _at_most(entries, most_per_class, root)
    fingerprint, spec = _fingerprint(entries, root), PreprocessSpec(image_size)
    images: dict[Entry, torch.Tensor] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    same_pixels: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        try:
            pixels = read_image(entry.path)
        except ImageError as error:
            problems.append(f"{_name(entry, root)}: {error}")
            continue
        images[entry] = spec.resize(pixels)
        sizes[pixels.shape[2], pixels.shape[1]] += 1
        same_pixels[hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).digest()].append(entry)
    class_names = _class_names(listing, list(images), problems)
    images = {entry: pixels for entry, pixels in images.items() if entry.label in class_names}
    splits = {split: _stack(images, split, class_names, image_size) for split in ("train", "validation", "test")}
    warnings = _duplicates(same_pixels.values(), root) + _small_classes(splits["train"], class_names)
    return ImageFolder(listing.layout, class_names, splits, dict(sizes), fingerprint, problems, warnings)


def find_listing(path: Path) -> Listing:
    """The files, by the first layout that fits; `#PART` behind the path takes one domain.

    Raises
    ------
    FolderError: no such folder, or none of the layouts.
    """
    name, _, part = path.name.rpartition("#")
    if name and not path.exists():
        return find_listing(path.with_name(name)).part(part)
    if path.is_file():
        rooms = {".csv": csv_files.read_table, ".tsv": csv_files.read_table, ".txt": list_files.read_list}
        if path.suffix.lower() not in rooms:
            raise FolderError(
                f"{printable_path(path)} is no folder of images, no .csv table and no .txt list: name one of these"
            )
        return rooms[path.suffix.lower()](path)
    if not path.is_dir():
        raise FolderError(
            f"there is no folder {printable_path(path)}: name a folder that has one sub-folder of images for each class"
        )
    return list_files.find_listing(path) or csv_files.find_listing(path) or class_folders.find_listing(path)


def _inside(listing: Listing, problems: list[str], allow_outside: bool) -> list[Entry]:
    """Entries in the order of their paths, each file once, without those that lie elsewhere."""
    root = os.path.realpath(listing.root)
    kept: dict[Path, Entry] = {}
    for entry in sorted(listing.entries, key=lambda entry: os.fsencode(entry.path)):
        if not allow_outside and os.path.commonpath([root, os.path.realpath(entry.path)]) != root:
            problems.append(
                f"{_name(entry, listing.root)}: it lies outside the folder; node config 'allow-outside' reads it"
            )
        elif (first := kept.setdefault(entry.path, entry)) is not entry:
            problems.append(f"{_name(entry, listing.root)}: it is listed twice, the first time as '{first.label}'")
    return list(kept.values())


def _with_splits(entries: list[Entry], root: Path) -> list[Entry]:
    """Every entry with a split: the given one, else by the order of path hashes within its class."""
    if any(entry.split for entry in entries):
        return [replace(entry, split=entry.split or "train") for entry in entries]
    classes: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        classes[entry.label].append(entry)
    split = []
    for _, members in sorted(classes.items()):
        members.sort(key=lambda entry: hashlib.sha256(_relative(entry, root)).digest())
        num_validation = round(len(members) * VALIDATION_SHARE)
        num_held_out = num_validation + round(len(members) * TEST_SHARE)
        parts = {
            "validation": members[:num_validation],
            "test": members[num_validation:num_held_out],
            "train": members[num_held_out:],
        }
        split += [replace(entry, split=name) for name, part in parts.items() for entry in part]
    return split


def _at_most(entries: list[Entry], most: int, root: Path) -> list[Entry]:
    ranks: Counter[str] = Counter()
    kept = []
    for entry in sorted(entries, key=lambda entry: hashlib.sha256(_relative(entry, root)).digest()):
        ranks[entry.label] += entry.split == "train"
        if entry.split != "train" or ranks[entry.label] <= most:
            kept.append(entry)
    return kept


def _class_names(listing: Listing, readable: list[Entry], problems: list[str]) -> list[str]:
    """Sorted names of the classes with training images; classes with test images only are left out, and said so.

    Raises
    ------
    FolderError: a class without a readable image, or no class left.
    """
    trained = {entry.label for entry in readable if entry.split == "train"}
    others = Counter(entry.label for entry in readable if entry.label not in trained)
    for name in sorted({entry.label for entry in listing.entries} | set(listing.empty_classes)):
        if name not in trained and name not in others:
            why = f" ({problems[0]})" if problems else ""
            raise FolderError(
                f"class folder '{name}' in {printable_path(listing.root)} has no readable training image{why}: "
                "add some, or remove the folder"
            )
    problems += [f"class '{name}' has no training image, so its {count} other images are left out"
                 for name, count in sorted(others.items())]  # fmt: skip
    if not trained:
        raise FolderError(f"{printable_path(listing.root)} has no readable training image")
    return sorted(trained)


def _stack(images: dict[Entry, torch.Tensor], split: str, class_names: list[str], image_size: int) -> LabeledImages:
    """Ordered by class."""
    index = {name: number for number, name in enumerate(class_names)}
    chosen = sorted((entry for entry in images if entry.split == split), key=lambda entry: index[entry.label])
    pixels = [images[entry] for entry in chosen]
    stacked = torch.stack(pixels) if pixels else torch.zeros(0, 3, image_size, image_size, dtype=torch.uint8)
    return LabeledImages(stacked, torch.tensor([index[entry.label] for entry in chosen], dtype=torch.int64))


def _duplicates(groups: Iterable[list[Entry]], root: Path) -> list[str]:
    """One line for each image whose decoded pixels also stand in another split or under another class."""
    lines = []
    for first, *others in groups:
        for other in others:
            same = f"{_name(other, root)} has the same pixels as {_name(first, root)}"
            if other.label != first.label:
                lines.append(f"{same}, which is another class")
            elif other.split != first.split:
                lines.append(f"{same}: one is in {other.split}, the other in {first.split}")
    return lines


def _small_classes(train: LabeledImages, class_names: list[str]) -> list[str]:
    counts = torch.bincount(train.labels, minlength=len(class_names)).tolist()
    return [f"class '{name}' has only {count} training images"
            for name, count in zip(class_names, counts, strict=True) if count < TINY_CLASS]  # fmt: skip


def _fingerprint(entries: list[Entry], root: Path) -> str:
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: _relative(entry, root)):
        size = os.stat(entry.path).st_size if os.path.exists(entry.path) else -1
        digest.update(_relative(entry, root) + f"\0{size}\0{entry.label}\0{entry.split}\n".encode())
    return digest.hexdigest()


def _relative(entry: Entry, root: Path) -> bytes:
    return os.fsencode(os.path.relpath(entry.path, root)).replace(os.fsencode(os.sep), b"/")


def _name(entry: Entry, root: Path) -> str:
    return printable_path(Path(os.path.relpath(entry.path, root)))
