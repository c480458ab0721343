"""A client's own images: read from any layout of its `data-path` as labelled square images in three splits.

`finding.py` says which images these are. If the layout has no splits, each class is split 70/10/20 in the order of the
hashes of its files' relative paths. This needs no seed and is the same on every machine.
"""

import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.config.node import MAX_MEGAPIXELS
from common.datasets.labeled_images import LabeledImages
from common.datasets.readers.doubts import find_doubts
from common.datasets.readers.finding import find_listing, find_unused
from common.datasets.readers.image_files import ImageError, Picture, printable_path, read_picture
from common.datasets.readers.listing import Entry, FolderError, Listing, check_distinct_names
from common.datasets.readers.tree import LeftOut, Reason, describe
from common.vision.preprocessing import PreprocessSpec

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
OUTSIDE = Reason(
    "outside the folder, to which links or paths lead: allow them by --allow-outside, or 'allow-outside' in the node "
    "config",
    "by folder",
)
LOST = Reason("linked to what is not there", "by folder")


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
    """One line for each file, or group of files, that was skipped."""
    warnings: list[str]
    """One line for each thing that its owner should look at; no image is left out for it."""
    num_left_out: int
    """Files below the path that are not used; `problems` says why."""

    @property
    def num_images(self) -> int:
        """The images of all splits."""
        return sum(map(len, self.splits.values()))


def load(
    path: Path,
    image_size: int,
    allow_outside: bool = False,
    most_per_class: int | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> ImageFolder:
    """Read train, validation and test images and resize them to squares of `image_size` pixels.

    Parameters
    ----------
    allow_outside: also read images whose links or paths lead out of the folder; otherwise they are skipped.
    most_per_class: the most training images of each class that are read; they are the first by the hash of their paths.
    max_megapixels: the most million pixels of an image; a larger one is skipped.

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
    check_distinct_names({entry.label for entry in listing.entries} | set(listing.empty_classes), root)
    left_out, twice = dict(listing.left_out), list[str]()
    entries = _with_splits(_inside(listing, left_out, twice, allow_outside), root)
    if most_per_class is not None:
        entries = _at_most(entries, most_per_class, root, left_out)
    spec = PreprocessSpec(image_size)
    images: dict[Entry, torch.Tensor] = {}
    pictures: dict[Entry, Picture] = {}
    same_pixels: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        try:
            picture = read_picture(entry.path, max_megapixels)
        except ImageError as error:
            left_out[entry.path] = Reason(str(error))
            continue
        pixels = picture.pixels
        images[entry], pictures[entry] = spec.resize(pixels), replace(picture, pixels=torch.empty(0))
        same_pixels[hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).digest()].append(entry)
    fingerprint = _fingerprint(entries, root, {entry: key for key, group in same_pixels.items() for entry in group})
    left_out |= find_unused(listing, {entry.path for entry in images} | left_out.keys())
    problems = [*listing.problems, *twice, *describe(left_out, listing.below or root)]
    class_names = _class_names(listing, list(images), problems)
    images = {entry: pixels for entry, pixels in images.items() if entry.label in class_names}
    splits = {split: _stack(images, split, class_names, image_size) for split in ("train", "validation", "test")}
    warnings = listing.doubts + find_doubts(splits, class_names, pictures, same_pixels.values(), root)
    num_left_out = sum(not os.path.isdir(file) for file in left_out) + len(pictures) - len(images)
    sizes = Counter(picture.size for picture in pictures.values())
    return ImageFolder(listing.layout, class_names, splits, dict(sizes), fingerprint, problems, warnings, num_left_out)


def _inside(listing: Listing, left_out: LeftOut, twice: list[str], allow_outside: bool) -> list[Entry]:
    """The entries sorted by path, each once, without lost links, or files outside unless `allow_outside`."""
    roots = [os.path.realpath(root) for root in (listing.root, listing.below) if root]
    kept: dict[Path, Entry] = {}
    for entry in sorted(listing.entries, key=lambda entry: os.fsencode(entry.path)):
        real = os.path.realpath(entry.path)
        if os.path.islink(entry.path) and not os.path.exists(entry.path):
            left_out[entry.path] = LOST
        elif not allow_outside and not any(os.path.commonpath([root, real]) == root for root in roots):
            left_out[entry.path] = OUTSIDE
        elif (first := kept.setdefault(entry.path, entry)) is not entry:
            twice.append(f"{entry.name_below(listing.root)}: it is listed twice, the first time as '{first.label}'")
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


def _at_most(entries: list[Entry], most: int, root: Path, left_out: LeftOut) -> list[Entry]:
    ranks: Counter[str] = Counter()
    kept = []
    for entry in sorted(entries, key=lambda entry: hashlib.sha256(_relative(entry, root)).digest()):
        ranks[entry.label] += entry.split == "train"
        if entry.split != "train" or ranks[entry.label] <= most:
            kept.append(entry)
        else:
            left_out[entry.path] = Reason(f"beyond the {most} of each class that are taken", "together")
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
            near = [line for line in problems if name in line] or problems
            why = f" ({near[0]})" if near else ""
            raise FolderError(
                f"class folder '{name}' in {printable_path(listing.root)} has no readable training image{why}: "
                "add some, or remove the folder",
                f"a class has no readable training image; {len(problems)} files or rows were skipped",
            )
    problems += [f"class '{name}' has no training image, so its {count} other images are left out"
                 for name, count in sorted(others.items())]  # fmt: skip
    if others and not trained:
        raise FolderError(
            f"all images of {printable_path(listing.root)} are for validation or test: give some the split 'train'",
            "no image is for training",
        )
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


def _fingerprint(entries: list[Entry], root: Path, pixels: dict[Entry, bytes]) -> str:
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: _relative(entry, root)):
        shown = pixels.get(entry, b"").hex()
        digest.update(_relative(entry, root) + f"\0{shown}\0{entry.label}\0{entry.split}\n".encode())
    return digest.hexdigest()


def _relative(entry: Entry, root: Path) -> bytes:
    return os.fsencode(os.path.relpath(entry.path, root)).replace(os.fsencode(os.sep), b"/")
