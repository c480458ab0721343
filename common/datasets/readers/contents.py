"""What a client's images are: files, classes, splits, problems and doubts, in any layout of its `data-path`.

`finding.py` says which images these are. If the layout has no splits, each class is split 70/10/20 in the order of the
hashes of its files' relative paths. This needs no seed and is the same on every machine.
Nothing here needs PyTorch.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from common.config.node import MAX_MEGAPIXELS
from common.datasets.readers.doubts import find_doubts
from common.datasets.readers.finding import find_listing, find_unused
from common.datasets.readers.image_files import printable_path
from common.datasets.readers.listing import Entry, FolderError, Listing, check_distinct_names
from common.datasets.readers.pictures import Found, Pictures, look_at
from common.datasets.readers.tree import LeftOut, Reason, describe

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
LEAST_IMAGES = 2
"""For training: BatchNorm needs two images."""
SPLITS = ("train", "validation", "test")
OUTSIDE = Reason(
    "outside the folder, to which links or paths lead: allow them by --allow-outside, or 'allow-outside' in the node "
    "config",
    "by folder",
)
LOST = Reason("linked to what is not there", "by folder")


@dataclass(frozen=True)
class Contents:
    """What a folder holds."""

    layout: str
    """The layout that was recognised, in words for the user."""
    class_names: list[str]
    """Sorted; the classes that have training images."""
    entries: list[Entry]
    """The files that can be read, each with a split, and perhaps of other classes."""
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
    def counts(self) -> dict[str, Counter[str]]:
        """Split -> class name -> number of images."""
        return _count(self.entries, self.class_names)

    @property
    def num_images(self) -> int:
        """The images of all splits."""
        return sum(count.total() for count in self.counts.values())


def inspect(path: Path, allow_outside: bool = False, max_megapixels: float = MAX_MEGAPIXELS) -> Contents:
    """Open every image, and keep none.

    Raises
    ------
    FolderError: as `read_contents`.
    """
    return read_contents(path, lambda paths: look_at(paths, max_megapixels), allow_outside)


def read_contents(
    path: Path, read: Callable[[list[Path]], Pictures], allow_outside: bool = False, most_per_class: int | None = None
) -> Contents:
    """What `path` holds.

    Parameters
    ----------
    read: opens the images; it is called once.
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
    check_distinct_names({entry.label for entry in listing.entries} | set(listing.empty_classes), root)
    left_out, twice = dict(listing.left_out), list[str]()
    entries = _with_splits(_inside(listing, left_out, twice, allow_outside), root)
    if most_per_class is not None:
        entries = _at_most(entries, most_per_class, root, left_out)
    pictures = read([entry.path for entry in entries])
    found = pictures.found
    left_out |= {file: Reason(why) for file, why in pictures.unreadable.items()}
    readable = [entry for entry in entries if entry.path in found]
    fingerprint = _fingerprint(entries, root, found)
    left_out |= find_unused(listing, found.keys() | left_out.keys())
    problems = [*listing.problems, *twice, *describe(left_out, listing.below or root)]
    class_names = _class_names(listing, readable, problems)
    counts = _count(readable, class_names)
    warnings = [*listing.doubts, *find_doubts(counts, class_names, readable, found, root), *pictures.doubts]
    num_unused = len(readable) - sum(count.total() for count in counts.values())
    num_left_out = sum(not os.path.isdir(file) for file in left_out) + num_unused
    sizes = dict(Counter(picture.size for picture in found.values()))
    return Contents(listing.layout, class_names, readable, sizes, fingerprint, problems, warnings, num_left_out)


def _count(entries: list[Entry], class_names: list[str]) -> dict[str, Counter[str]]:
    known = set(class_names)
    return {split: Counter(entry.label for entry in entries if entry.split == split and entry.label in known)
            for split in SPLITS}  # fmt: skip


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


def _fingerprint(entries: list[Entry], root: Path, found: dict[Path, Found]) -> str:
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: _relative(entry, root)):
        shown = found[entry.path].checksum if entry.path in found else ""
        digest.update(_relative(entry, root) + f"\0{shown}\0{entry.label}\0{entry.split}\n".encode())
    return digest.hexdigest()


def _relative(entry: Entry, root: Path) -> bytes:
    return os.fsencode(os.path.relpath(entry.path, root)).replace(os.fsencode(os.sep), b"/")
