"""Which images a `data-path` means: the first layout that fits, and every file below that is in none of its rows.

Layouts are list files (`list_files.py`), tables (`csv_files.py`), and class folders with or without splits or domains
(`class_folders.py`). `data-path` names a folder, a list or a table. `#PART` at its end selects one domain
(`PACS#sketch`, `NICO_unique#2`), unless a file or folder has this very name.
"""

from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from common.datasets.readers import class_folders, csv_files, list_files
from common.datasets.readers.image_files import is_image, printable_path
from common.datasets.readers.listing import FolderError, Listing
from common.datasets.readers.parts import split_part
from common.datasets.readers.tree import LeftOut, Reason, not_an_image, scan
from common.datasets.readers.words import is_litter


def find_listing(path: Path) -> Listing:
    """List the image files by the first layout that fits.

    Raises
    ------
    FolderError: the path does not exist or has no known layout.
    """
    path, part = split_part(path)
    if part:
        return find_listing(path).part(part)
    if path.is_file():
        readers = {".csv": csv_files.read_table, ".tsv": csv_files.read_table, ".txt": list_files.read_list}
        if path.suffix.lower() not in readers:
            raise FolderError(
                f"{printable_path(path)} is no folder of images, no .csv table and no .txt list: give one of these, "
                "and unpack an archive first",
                "'data-path' names a file that is no table and no list",
            )
        return readers[path.suffix.lower()](path)
    if not path.is_dir():
        raise FolderError(
            f"there is no folder {printable_path(path)}: give a folder with one sub-folder of images for each class",
            "'data-path' names nothing that is there",
        )
    wrappers = _through_wrappers(path)
    for folder in wrappers:
        if found := list_files.find_listing(folder) or csv_files.find_listing(folder):
            return replace(found, below=path)
    unused = csv_files.explain_unused(path, wrappers)
    try:
        found = class_folders.find_listing(path)
    except FolderError as error:
        raise FolderError("; ".join([str(error), *unused]), error.problem) from None
    return replace(found, below=path, doubts=found.doubts + unused)


def find_unused(listing: Listing, known: Container[Path]) -> LeftOut:
    """Every file below the folder of a listing that is not `known`, and why it is not used."""
    if not listing.below:
        return {}
    found: LeftOut = {}
    for folder in scan(listing.below).walk():
        found |= folder.left_out | {file: not_an_image(file) for file in folder.others}
        found |= dict.fromkeys(folder.images, Reason(listing.unlisted, "by folder"))
    return {file: reason for file, reason in found.items() if file not in known}


def _through_wrappers(path: Path) -> list[Path]:
    """The folder, and those below that are alone in their folder, as archives are unpacked."""
    folders, seen = [path], {path.resolve()}
    while True:
        inside = [child for child in folders[-1].iterdir() if not is_litter(child.name)]
        subfolders = [child for child in inside if child.is_dir()]
        if len(subfolders) != 1 or subfolders[0].resolve() in seen or any(map(is_image, inside)):
            return folders
        folders += subfolders
        seen.add(subfolders[0].resolve())
