"""Layouts in which the folders' names are the labels.

`class/image`                              torchvision's ImageFolder
`train|validation|test/class/image`        class folders in split folders
`domain/class/image`                       PACS (`kfold/`), Office-Home, DomainNet or NICO++ Common without their lists
`class/images|masks/image`                 COVID-19 Radiography; masks are left out

Splits may lie at any level, and lone folders around all of it are looked through (see `levels.py`). What can be read in
two ways is refused, or told as a doubt.
"""

from collections import Counter
from pathlib import Path

from common.datasets.readers import words
from common.datasets.readers.image_files import printable_path
from common.datasets.readers.levels import Level, read_levels
from common.datasets.readers.listing import Entry, FolderError, Listing, parse_class_name
from common.datasets.readers.tree import Folder, LeftOut, scan

SHARED, UNCLEAR = 1 / 2, 1 / 3
"""Folders are domains if more than half of their sub-folders' names occur in several of them; from a third on it is
unclear."""
MOST_SHOWN = 4


def find_listing(path: Path) -> Listing:
    """List the images below `path` by their class folders.

    Raises
    ------
    FolderError: there are no class folders, split folders are mixed with other folders, or the folders can be read in
        two ways.
    """
    path.stat()
    root, left_out = scan(path), LeftOut()
    levels = read_levels(root, left_out)
    splits = {split for _, split in levels.all_images()} - {None}
    full = levels.full()
    if not full and not levels.children:
        raise _no_classes(root)
    if splits and "train" not in splits:
        raise FolderError(
            f"folder {printable_path(path)} has split folders but no 'train': add a folder 'train'",
            "there is no folder for the split 'train'",
        )
    is_domain = _are_domains(path, full)
    groups = full if is_domain else {"": levels}
    entries, classes = [], Level()
    for domain, group in groups.items():
        classes.merge(group)
        for name, folder in group.children.items():
            label = parse_class_name(name, f"folder {printable_path(group.paths[0])}")
            entries += [Entry(image, label, split, domain or None) for image, split in folder.all_images()]
    named = {parse_class_name(name, f"folder {printable_path(path)}") for name in classes.children}
    doubts = _doubts(path, full, classes, is_domain)
    kinds = [kind for kind, there in (("split folders", splits), ("domain folders", is_domain)) if there]
    layout = " and ".join(kinds) + " of class folders" if kinds else "class folders"
    empty = tuple(sorted(named - {entry.label for entry in entries}))
    top = levels.paths[0] if len(levels.paths) == 1 and not splits else path
    return Listing(
        layout, top, entries, empty_classes=empty, left_out=left_out, unlisted="in no class folder", doubts=doubts
    )


def _are_domains(root: Path, full: dict[str, Level]) -> bool:
    """Whether these are two or more folders without images of their own that share most of their sub-folders' names.

    Raises
    ------
    FolderError: it cannot be told whether they are domains or classes.
    """
    names = Counter(name for level in full.values() for name in level.full())
    share = sum(count > 1 for count in names.values()) / max(1, len(names))
    own = [level for level in full.values() if level.images]
    if len(full) < 2 or share <= UNCLEAR:
        return False
    if not own and share > SHARED and len(names) > 1 and not any(map(words.may_be_no_class, names)):
        return True
    num_own, num_all = (sum(map(len, found)) for found in ([x.images for x in own], [x.all_images() for x in own]))
    if own and len(own) == len(full) and 2 * num_own >= num_all:
        return False
    raise _two_ways(root, f"{_list(full)} as classes, or as domains of the classes {_list(names)}")


def _doubts(root: Path, full: dict[str, Level], classes: Level, is_domain: bool) -> list[str]:
    """What its owner should look at, since the folders might be meant otherwise.

    Raises
    ------
    FolderError: this is surely not what they are meant to be.
    """
    held = classes.full()
    if never := [name for name in held if words.is_never_class(name) or words.split_of(name)]:
        raise _two_ways(root, f"{_list(held)} as classes, or '{never[0]}' as what its name says, which is no class")
    if twice := [name for name, level in held.items() for other in level.full() if other != name and other in held]:
        raise _two_ways(root, f"{_list(held)} as classes, or '{twice[0]}' as a folder of classes")
    lines = []
    if is_domain:
        inner = Counter(name for level in held.values() if not level.images for name in level.full())
        if sum(count > 1 for count in inner.values()) >= max(1, len(inner) * UNCLEAR):
            raise _two_ways(root, f"{_list(held)} as classes, or as domains of the classes {_list(inner)}")
        lines.append(f"{_list(full)} are read as domains, and {_list(held)} as the classes in each of them")
    elif nested := [name for name, level in held.items() if not level.images and len(level.full()) > 1]:
        inner_names = _list(held[nested[0]].full())
        if any(level.images for level in held.values()):
            raise _two_ways(root, f"{_list(held)} as classes, or {inner_names} in '{nested[0]}' as classes")
        lines.append(f"the folders in '{nested[0]}' ({inner_names}) are read as parts of this class")
        if len(nested) > 1:
            lines[-1] += f", and likewise those in {len(nested) - 1} others"
    if len(held) == 1:
        [(name, level)] = held.items()
        if len(level.all_images()) > 2 * len(level.images) > 0:
            raise _two_ways(root, f"'{name}' as the only class, or {_list(level.full())} in it as the classes")
        lines.append(f"there is one class only, '{name}': {printable_path(root)} should be the folder of all classes")
    if masks := [name for name in held if words.is_masks(name)]:
        lines.append(f"{_list(masks)} are read as classes, but their names may say masks")
    return lines


def _two_ways(root: Path, readings: str) -> FolderError:
    return FolderError(
        f"folder {printable_path(root)} can be read in two ways, {readings}: rename or move the folders so that only "
        "those of classes are left, or give a table with the columns path and label",
        "their folders can be read in two ways",
    )


def _no_classes(root: Folder) -> FolderError:
    return FolderError(
        f"folder {printable_path(root.path)} has no class folders: put the images of each class in a folder of its "
        "name",
        "there are no class folders",
    )


def _list(names: "Counter[str] | dict[str, Level] | list[str]") -> str:
    shown = [f"'{name}'" for name in sorted(names)]
    more = f" and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return ", ".join(shown[:MOST_SHOWN]) + more
