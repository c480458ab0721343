"""Text files with lines `path label-index`, in which DomainNet, NICO++ and PACS are distributed.

DomainNet       `clipart_train.txt`, `clipart_test.txt` beside the folder `clipart`, lines `clipart/CLASS/file.jpg 0`
NICO++ Common   `NICO_DG_official/autumn_train.txt` beside `NICO_DG`, lines `NICO_DG/autumn/CLASS/file.jpg 0`
NICO++ Unique   `NICO_unique_official/CLASS_CONTEXT_train.txt` beside `NICO_unique`, lines
                `.../NICO_unique/CLASS/CONTEXT/file.jpg 0`, which start with folders of the machine that wrote them;
                part k (from 0) is the k-th context of every class, in sorted order
PACS            `art_painting_train_kfold.txt`, `..._crossval_kfold.txt`, lines `art_painting/CLASS/file.jpg 1`

A class has the name of its folder. If the folders do not tell the classes, `*label_id_mapping.json` (NICO++ challenge)
beside the lists names them; without this file, a class is named by its index. The NICO++ layouts follow public code
that reads them.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from common.datasets.readers.image_files import is_image, printable_path
from common.datasets.readers.listing import Entry, FolderError, Listing, parse_class_name
from common.datasets.readers.texts import find_encoding
from common.datasets.readers.words import SPLITS, is_litter

NAME = re.compile(r"(?P<domain>.+)_(?P<split>train|val|validation|crossval|test)(_kfold)?\.txt")
UNIQUE = "NICO_unique"


@dataclass(frozen=True)
class Row:
    """One line of a list."""

    path: PurePosixPath
    """The path as the list gives it."""
    label: str
    """The index; later the class name."""
    split: str
    domain: str


def read_list(file: Path) -> Listing:
    """List the images that a list file names, and those of the other lists of its domain beside it.

    Raises
    ------
    FolderError: the file is not such a list, or cannot be read.
    """
    domain, _ = _domain_and_split(file)
    if not _is_list(file):
        raise FolderError(
            f"the first line of list {printable_path(file)} must be 'path label-index', which ends in a whole number: "
            "check that this is the right file",
            "a file is not a list of images and labels",
        )
    return _read(_in(file.parent, domain))


def find_listing(folder: Path) -> Listing | None:
    """List the images of the lists in or beside a folder, or of one domain's folder; None without lists."""
    lists = _lists(folder)
    return _read(lists) if lists else None


def _read(lists: list[Path]) -> Listing:
    problems: list[str] = []
    doubts: list[str] = []
    folder, where = lists[0].parent, f"list {printable_path(lists[0])}"
    rows = [row for file in lists for row in _rows(file, problems, doubts)]
    unique = all(UNIQUE in row.path.parts[:-3] for row in rows)
    rows = _name_unique(rows) if unique else _name(rows, _mapping(folder), where)
    files, root = _locate(rows, folder)
    entries = [
        Entry(file, parse_class_name(row.label, where), row.split, row.domain)
        for row, file in zip(rows, files, strict=True)
        if os.path.isfile(file)
    ]
    if not entries:
        raise FolderError(
            f"none of the images that {where} names lies beside it: unpack the images there",
            f"none of the {len(rows)} images of a list is there",
        )
    if missing := len(rows) - len(entries):
        problems.append(f"{missing} of {len(rows)} listed images are missing")
    layout = "NICO++ Unique lists" if unique else "list files"
    return Listing(layout, root, entries, problems, unlisted="that no list names", doubts=doubts)


def _lists(path: Path) -> list[Path]:
    official = path.with_name(f"{path.name}_official")
    # Unpacking sometimes puts a folder of lists into another folder of the same name.
    for folder in (path, path / "splits", path / path.name, official, official / official.name):
        if lists := _in(folder):
            return lists
    above = path.parent.with_name(f"{path.parent.name}_official")
    for folder in (path.parent, path.parent / "splits", above, above / above.name):
        if lists := _in(folder, path.name):
            return lists
    if sets := [name.removesuffix("_official") for name in _subfolders(path) if _in(path / name)]:
        raise FolderError(
            f"folder {printable_path(path)} holds lists of {' and '.join(sets)}: name one of them, for example "
            f"{printable_path(path / sets[0])}",
            f"there are {len(sets)} sets of lists, and none is chosen",
        )
    return []


def _subfolders(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.iterdir() if folder.is_dir() and not is_litter(folder.name))


def _in(folder: Path, domain: str | None = None) -> list[Path]:
    """The lists in a folder, of one domain or of all domains."""
    if not folder.is_dir():
        return []
    matches = [(path, NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.txt"))]
    files = [path for path, match in matches if match and domain in (None, match["domain"]) and path.is_file()]
    return [path for path in files if _is_list(path)]


def _domain_and_split(file: Path) -> tuple[str, str]:
    if not (match := NAME.fullmatch(file.name)):
        raise FolderError(
            f"list {printable_path(file)} must be called DOMAIN_train.txt or DOMAIN_test.txt",
            "a list does not have the name of a list",
        )
    return match["domain"], SPLITS[match["split"]]


def _is_list(file: Path) -> bool:
    """Whether the file's first line ends in a number; other text files hardly ever do."""
    try:
        with open(file, encoding=find_encoding(file)[0], errors="replace") as stream:
            return stream.readline().rpartition(" ")[2].strip().isdigit()
    except ValueError:
        return False


def _rows(file: Path, problems: list[str], doubts: list[str]) -> list[Row]:
    domain, split = _domain_and_split(file)
    try:
        encoding, doubt = find_encoding(file)
        lines = file.read_text(encoding=encoding).splitlines()
    except (OSError, ValueError) as error:
        raise FolderError(f"list {printable_path(file)} cannot be read: {error}", "a list cannot be read") from None
    rows = []
    if doubt:
        doubts.append(f"{file.name} {doubt}")
    for number, line in enumerate(lines, 1):
        written, _, index = line.strip().rpartition(" ")
        path = PurePosixPath(written.strip().replace("\\", "/"))
        if not written or not index.isdecimal():
            if line.strip():
                problems.append(f"{file.name} line {number} is not 'path label-index'")
        elif is_image(path):
            rows.append(Row(path, str(int(index)), split, domain))
        elif not path.name.startswith("."):
            problems.append(f"{file.name} line {number} does not name an image file")
    if not rows:
        raise FolderError(
            f"list {printable_path(file)} has no line 'path label-index': check that this is the right file",
            "a list names no image",
        )
    return rows


def _locate(rows: list[Row], folder: Path) -> tuple[list[Path], Path]:
    """The path of each row's file, and the folder to which the paths are relative.

    Leading folders of the paths may be dropped. The first row whose file exists decides which folder and how many
    leading folders, for all rows.
    """
    bases = (folder, folder.parent, folder.parent.parent, folder / "kfold", folder / "images" / "kfold")
    places = ((cut, base) for row in rows for cut in range(len(row.path.parts)) for base in bases
              if os.path.isfile(base.joinpath(*row.path.parts[cut:])))  # fmt: skip
    cut, base = next(places, (0, folder))
    return [base.joinpath(*row.path.parts[cut:]) for row in rows], base


def _name_unique(rows: list[Row]) -> list[Row]:
    """The rows with their class, and with the number of their context among the contexts of that class as domain."""
    contexts: dict[str, set[str]] = {}
    for row in rows:
        *_, label, context, _ = row.path.parts
        contexts.setdefault(label, set()).add(context)
    order = {label: sorted(names) for label, names in contexts.items()}
    return [
        replace(row, label=label, domain=str(order[label].index(context)))
        for row in rows
        for *_, label, context, _ in [row.path.parts]
    ]


def _name(rows: list[Row], names: dict[str, str], where: str) -> list[Row]:
    """The rows with class names instead of indices: from the mapping, else the folders' names, else the indices."""
    pairs = {(row.label, row.path.parent.name) for row in rows}
    one_to_one = len(pairs) == len({index for index, _ in pairs}) == len({name for _, name in pairs})
    if not names:
        names = dict(pairs) if one_to_one else {index: index for index, _ in pairs}
    if unknown := {index for index, _ in pairs} - set(names):
        raise FolderError(
            f"{where} has the label index {min(unknown)}, which label_id_mapping.json does not name: add it there",
            "a list has a label index without a class",
        )
    return [replace(row, label=names[row.label]) for row in rows]


def _mapping(folder: Path) -> dict[str, str]:
    """Index -> class name, from the NICO++ challenge's `*label_id_mapping.json` in or above the folder of the lists."""
    found = [file for place in (folder, folder.parent) for file in sorted(place.glob("*label_id_mapping.json"))]
    for file in filter(Path.is_file, found):
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
            return {str(int(index)): str(name) for name, index in content.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise FolderError(
                f"{printable_path(file)} does not map class names to indices: {error}",
                "a file of class names cannot be read",
            ) from None
    return {}
