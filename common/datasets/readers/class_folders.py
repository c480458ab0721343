"""Layouts in which the folders' names are the labels.

`class/image`                              torchvision's ImageFolder
`train|validation|test/class/image`        class folders in split folders
`domain/class/image`                       PACS (`kfold/`), Office-Home, DomainNet or NICO++ Common without their lists
"""

from collections import Counter
from pathlib import Path

from common.datasets.readers.image_files import is_image, list_subfolders, printable_path, walk_images
from common.datasets.readers.listing import SPLITS, Entry, FolderError, Listing, parse_class_name


def find_listing(root: Path) -> Listing:
    """List the images below `root` by their class folders.

    Raises
    ------
    FolderError: there are no class folders, or split folders are mixed with other folders.
    """
    folders = list_subfolders(root)
    if [folder.name for folder in folders] == ["kfold"]:
        return find_listing(root / "kfold")
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if "train" in {SPLITS[folder.name.lower()] for folder in splits}:
        if strangers := [folder.name for folder in folders if folder not in splits]:
            raise FolderError(
                f"folder {printable_path(root)} has split folders and also '{strangers[0]}': move it into a "
                "split folder",
                "other folders lie beside the split folders",
            )
        return _listing(
            "split folders of class folders", root, [(split, SPLITS[split.name.lower()]) for split in splits]
        )
    if folders and splits == folders:
        raise FolderError(
            f"folder {printable_path(root)} has split folders but no 'train': add a folder 'train'",
            "there is no folder for the split 'train'",
        )
    if _are_domains(folders):
        return _listing("domain folders of class folders", root, [(folder, None) for folder in folders])
    return _listing("class folders", root, [(root, None)])


def _listing(layout: str, root: Path, groups: list[tuple[Path, str | None]]) -> Listing:
    """The images of the class folders in each group; a group is a folder of class folders with its split (or None)."""
    problems: list[str] = []
    entries, named = [], set()
    for group, split in groups:
        for folder in list_subfolders(group):
            label = parse_class_name(folder.name, f"folder {printable_path(group)}")
            named.add(label)
            domain = group.name if group != root and split is None else None
            entries += [Entry(path, label, split, domain) for path in walk_images(folder, problems)]
    if not named:
        raise FolderError(
            f"folder {printable_path(groups[0][0])} has no class folders: put the images of each class in a folder of "
            "its name",
            "there are no class folders",
        )
    empty = tuple(sorted(named - {entry.label for entry in entries}))
    return Listing(layout, root, entries, problems, empty)


def _are_domains(folders: list[Path]) -> bool:
    """Whether these are two or more folders without images of their own that share most of their sub-folders' names."""
    if len(folders) < 2 or any(is_image(path) for folder in folders for path in folder.iterdir()):
        return False
    names = Counter(path.name for folder in folders for path in list_subfolders(folder))
    return sum(count > 1 for count in names.values()) > len(names) / 2
