"""The tree of folders without the levels whose names say no class: splits, pictures beside masks, lone wrappers.

`wrapper/train/photo/cat/images/1.png` lies below `photo/cat` of this tree, and has the split `train`. What the tree's
levels are then, domains or classes, `class_folders.py` decides.
"""

from dataclasses import dataclass, field
from pathlib import Path

from common.datasets.readers import words
from common.datasets.readers.image_files import printable_path
from common.datasets.readers.listing import FolderError
from common.datasets.readers.tree import Folder, LeftOut, Reason

MASK = Reason("of masks, which are no images of a class", "together")


@dataclass(eq=False)
class Level:
    """The folders of one name; in a layout with splits, one of each split."""

    paths: list[Path] = field(default_factory=list)
    images: list[tuple[Path, str | None]] = field(default_factory=list)
    """Images that lie here, with their split."""
    children: dict[str, "Level"] = field(default_factory=dict)

    def all_images(self) -> list[tuple[Path, str | None]]:
        """The images here and at any depth below."""
        return self.images + [image for child in self.children.values() for image in child.all_images()]

    def full(self) -> dict[str, "Level"]:
        """The children that hold images."""
        return {name: child for name, child in self.children.items() if child.all_images()}

    def merge(self, other: "Level") -> None:
        """Take in what lies in another level of the same place."""
        self.paths += [path for path in other.paths if path not in self.paths]
        self.images += other.images
        for name, child in other.children.items():
            self.children.setdefault(name, Level()).merge(child)


def read_levels(root: Folder, left_out: LeftOut) -> Level:
    """The tree without those levels; masks, and folders that hold no images, are entered in `left_out`.

    Raises
    ------
    FolderError: splits lie beside other folders, or one within another.
    """
    by_split: dict[str | None, Level] = {}
    _collect(root, _Place(), by_split, left_out)
    whole = by_split.pop(None, Level())
    if by_split and (strays := whole.full()):
        raise _mixed(root.path, next(iter(strays)), str(next(iter(by_split))))
    for split, level in by_split.items():
        others = {name for other, each in by_split.items() if other != split for name in each.full()}
        unwrap(level, others)
    whole.paths = [root.path]
    for level in by_split.values():
        whole.merge(level)
    unwrap(whole)
    return whole


def unwrap(level: Level, keep: frozenset[str] | set[str] = frozenset()) -> None:
    """Take out every lone folder without images of its own that has folders in it; one called as in `keep` stays.

    Images that lie beside the outermost wrapper are in no class.
    """
    while len(full := level.full()) == 1:
        [(name, inner)] = full.items()
        if name in keep or inner.images or not inner.full():
            break
        level.paths, level.children = inner.paths, inner.children
    for child in level.children.values():
        if not child.images:
            unwrap(child)


@dataclass(frozen=True)
class _Place:
    """Where a folder stands in the tree: the folders above it whose names count, and its split."""

    above: tuple[Folder, ...] = ()
    split: str | None = None


def _collect(folder: Folder, place: _Place, found: dict[str | None, Level], left_out: LeftOut) -> None:
    """Enter the images at any depth below a folder in the tree of their split."""
    masks = _mask_files(folder)
    left_out |= dict.fromkeys(masks, MASK)
    if folder.images or not folder.has_images:
        _enter(place, found).images += [(image, place.split) for image in folder.images if image not in masks]
    full = [child for child in folder.folders if child.has_images]
    splits = [child for child in full if words.split_of(child.name)]
    pictures = [child for child in full if words.is_pictures(child.name)]
    passed = splits or pictures
    strangers = [child for child in full if child not in passed]
    beside = [child for child in strangers if words.is_masks(child.name)]
    if splits and len(beside) < len(strangers):
        raise _mixed(folder.path, next(child.name for child in strangers if child not in beside), splits[0].name)
    if len(beside) == len(strangers) and (passed or (folder.images and beside)):
        left_out |= {image: MASK for child in beside for part in child.walk() for image in part.images}
        for child in passed:
            _collect(child, _Place(place.above, _split(child, place.split)), found, left_out)
        return
    for child in folder.folders:
        _collect(child, _Place((*place.above, child), place.split), found, left_out)


def _enter(place: _Place, found: dict[str | None, Level]) -> Level:
    level = found.setdefault(place.split, Level())
    for folder in place.above:
        level = level.children.setdefault(folder.name, Level())
        if folder.path not in level.paths:
            level.paths.append(folder.path)
    return level


def _split(folder: Folder, above: str | None) -> str | None:
    split = words.split_of(folder.name) or above
    if above not in (None, split):
        raise FolderError(
            f"folder {printable_path(folder.path)} has the name of a split, but lies in the split '{above}': rename "
            "it, or take it out",
            "a split folder lies in another split",
        )
    return split


def _mask_files(folder: Folder) -> set[Path]:
    """The files `x_mask.png` beside `x.png`."""
    stems = {image.stem for image in folder.images}
    matches = {image: words.MASK_FILE.fullmatch(image.stem) for image in folder.images}
    return {image for image, match in matches.items() if match and match["of"] in stems}


def _mixed(folder: Path, name: str, split: str) -> FolderError:
    return FolderError(
        f"folder {printable_path(folder)} has split folders and also '{name}' beside '{split}': rename '{name}' to "
        "train, validation or test if it is one of these, and else take it out; if they are classes, give a table with "
        "the columns path and label",
        "other folders lie beside the split folders",
    )
