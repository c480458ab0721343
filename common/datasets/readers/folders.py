"""A client's own images: read from any layout of its `data-path` as labelled square images in three splits.

Layouts are class folders with or without splits or domains (`class_folders.py`), list files (`list_files.py`) and CSV
tables (`csv_files.py`). `data-path` names a folder, a list or a table. `#PART` at its end selects one domain
(`PACS#sketch`, `NICO_unique#2`). If the layout has no splits, each class is split 70/10/20 in the order of the hashes
of its files' relative paths. This needs no seed and is the same on every machine.
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
"""A class with fewer training images gets a warning."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder; labels index `class_names`, which are sorted."""

    layout: str
    """The layout that was recognised, in words for the user."""
    class_names: list[str]
    splits: dict[str, LabeledImages]
    sizes: dict[tuple[int, int], int]
    """(width, height) in pixels of the images on disk -> number of such images."""
    fingerprint: str
    """sha256 over the relative path, pixels, class and split of every file; a file that is no image has no pixels."""
    problems: list[str]
    """One line for each image, or group of files, that was skipped."""
    warnings: list[str]
    """One line for each duplicate and each class with few images; these images are not left out."""


def load(path: Path, image_size: int, allow_outside: bool = False, most_per_class: int | None = None) -> ImageFolder:
    """Read train, validation and test images and resize them to squares of `image_size` pixels.

    Parameters
    ----------
    allow_outside: also read images whose links or paths lead out of the folder; otherwise they are skipped.
    most_per_class: the most training images of each class that are read; they are the first by the hash of their paths.

    Raises
    ------
    FolderError: the path has no known layout, or a class has no readable image.
    """
    try:
        listing = find_listing(path.absolute())
    except OSError as error:
        raise FolderError(
            f"{printable_path(path)} cannot be read: {error.strerror}",
            os.strerror(error.errno) if error.errno else "their folder cannot be read",
        ) from None
    root = listing.root
    check_distinct_in_case({entry.label for entry in listing.entries} | set(listing.empty_classes), root)
    problems = [problem.replace(f"{printable_path(root)}{os.sep}", "") for problem in listing.problems]
    entries = _with_splits(_inside(listing, problems, allow_outside), root)
    if most_per_class is not None:
        entries = _at_most(entries, most_per_class, root)
    spec = PreprocessSpec(image_size)
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
    fingerprint = _fingerprint(entries, root, {entry: key for key, group in same_pixels.items() for entry in group})
    class_names = _class_names(listing, list(images), problems)
    images = {entry: pixels for entry, pixels in images.items() if entry.label in class_names}
    splits = {split: _stack(images, split, class_names, image_size) for split in ("train", "validation", "test")}
    warnings = _duplicates(same_pixels.values(), root) + _small_classes(splits["train"], class_names)
    return ImageFolder(listing.layout, class_names, splits, dict(sizes), fingerprint, problems, warnings)


def find_listing(path: Path) -> Listing:
    """List the image files by the first layout that fits; `#PART` at the end of the path selects one domain.

    Raises
    ------
    FolderError: the path does not exist or has no known layout.
    """
    name, _, part = path.name.rpartition("#")
    if name and not path.exists():
        return find_listing(path.with_name(name)).part(part)
    if path.is_file():
        readers = {".csv": csv_files.read_table, ".tsv": csv_files.read_table, ".txt": list_files.read_list}
        if path.suffix.lower() not in readers:
            raise FolderError(
                f"{printable_path(path)} is no folder of images, no .csv table and no .txt list: give one of these",
                "'data-path' names a file that is no table and no list",
            )
        return readers[path.suffix.lower()](path)
    if not path.is_dir():
        raise FolderError(
            f"there is no folder {printable_path(path)}: give a folder with one sub-folder of images for each class",
            "'data-path' names nothing that is there",
        )
    return list_files.find_listing(path) or csv_files.find_listing(path) or class_folders.find_listing(path)


def _inside(listing: Listing, problems: list[str], allow_outside: bool) -> list[Entry]:
    """The entries sorted by path, each file once, without files outside the folder unless `allow_outside`."""
    root = os.path.realpath(listing.root)
    kept: dict[Path, Entry] = {}
    for entry in sorted(listing.entries, key=lambda entry: os.fsencode(entry.path)):
        if not allow_outside and os.path.commonpath([root, os.path.realpath(entry.path)]) != root:
            problems.append(
                f"{_name(entry, listing.root)}: it lies outside the folder; set 'allow-outside' in the node config to "
                "read it"
            )
        elif (first := kept.setdefault(entry.path, entry)) is not entry:
            problems.append(f"{_name(entry, listing.root)}: it is listed twice, the first time as '{first.label}'")
    return list(kept.values())


def _with_splits(entries: list[Entry], root: Path) -> list[Entry]:
    """The entries with a split each: the layout's, or else one by the order of path hashes within the class."""
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
    """The sorted names of the classes that have training images; other classes are left out and become problems.

    Raises
    ------
    FolderError: a class has no readable image, or no class is left.
    """
    trained = {entry.label for entry in readable if entry.split == "train"}
    others = Counter(entry.label for entry in readable if entry.label not in trained)
    for name in sorted({entry.label for entry in listing.entries} | set(listing.empty_classes)):
        if name not in trained and name not in others:
            why = f" ({problems[0]})" if problems else ""
            raise FolderError(
                f"class folder '{name}' in {printable_path(listing.root)} has no readable training image{why}: "
                "add some, or remove the folder",
                f"a class has no readable training image; {len(problems)} files or rows were skipped",
            )
    problems += [f"class '{name}' has no training image, so its {count} other images are left out"
                 for name, count in sorted(others.items())]  # fmt: skip
    if not trained:
        raise FolderError(
            f"{printable_path(listing.root)} has no readable training image: add images of each class",
            f"there is no readable training image; {len(problems)} files or rows were skipped",
        )
    return sorted(trained)


def _stack(images: dict[Entry, torch.Tensor], split: str, class_names: list[str], image_size: int) -> LabeledImages:
    """The images of one split, sorted by class."""
    index = {name: number for number, name in enumerate(class_names)}
    chosen = sorted((entry for entry in images if entry.split == split), key=lambda entry: index[entry.label])
    pixels = [images[entry] for entry in chosen]
    stacked = torch.stack(pixels) if pixels else torch.zeros(0, 3, image_size, image_size, dtype=torch.uint8)
    return LabeledImages(stacked, torch.tensor([index[entry.label] for entry in chosen], dtype=torch.int64))


def _duplicates(groups: Iterable[list[Entry]], root: Path) -> list[str]:
    """One line for each image whose pixels also occur in another split or under another class."""
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


def _fingerprint(entries: list[Entry], root: Path, pixels: dict[Entry, bytes]) -> str:
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: _relative(entry, root)):
        shown = pixels.get(entry, b"").hex()
        digest.update(_relative(entry, root) + f"\0{shown}\0{entry.label}\0{entry.split}\n".encode())
    return digest.hexdigest()


def _relative(entry: Entry, root: Path) -> bytes:
    return os.fsencode(os.path.relpath(entry.path, root)).replace(os.fsencode(os.sep), b"/")


def _name(entry: Entry, root: Path) -> str:
    return printable_path(Path(os.path.relpath(entry.path, root)))
