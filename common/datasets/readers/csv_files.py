"""Tables that give each image's class: a manifest of the user's own, or the labels of Open Images (`open_images.py`).

A manifest has the columns `path`, `label` and optionally `split` and `domain`, or other usual names of these (`COLUMNS`
in `tables.py`). Paths are relative to the table's folder. Each split folder may have a manifest of its own, as in
Hugging Face's ImageFolder.
"""

import os
from dataclasses import replace
from pathlib import Path

from common.datasets.readers.image_files import is_image, printable_path
from common.datasets.readers.listing import Entry, FolderError, Listing, parse_class_name, parse_split
from common.datasets.readers.open_images import is_open_images, read_labels
from common.datasets.readers.tables import COLUMNS, Table, find_tables, open_table
from common.datasets.readers.words import split_of

UNLISTED = "that the table does not name"


def read_table(file: Path) -> Listing:
    """List the images that a table names.

    Raises
    ------
    FolderError: the table cannot be read, or it lacks a column.
    """
    table = open_table(file)
    return read_labels(file.parent, [table]) if is_open_images(table) else _manifest(table)


def find_listing(folder: Path) -> Listing | None:
    """List the images that the tables in a folder name; None if the folder has no such table.

    Raises
    ------
    FolderError: a manifest cannot be used, or the folder has more than one.
    """
    tables = [table for file in find_tables(folder) if (table := _open_or_none(file))]
    if labels := [table for table in tables if is_open_images(table)]:
        return read_labels(folder, labels)
    if table := _choose(folder, tables):
        return _manifest(table)
    splits = {path: split for path in sorted({table.file.parent for table in tables}) if path.parent == folder
              and (split := split_of(path.name))}  # fmt: skip
    chosen = {path: table for path in splits if (table := _choose(path, tables))}
    if "train" not in {splits[path] for path in chosen}:
        return None
    parts = [(splits[path], _manifest(table)) for path, table in chosen.items()]
    return Listing(
        "split folders with a CSV manifest each",
        folder,
        [replace(entry, split=split) for split, part in parts for entry in part.entries],
        [problem for _, part in parts for problem in part.problems],
        unlisted=UNLISTED,
        doubts=[doubt for _, part in parts for doubt in part.doubts],
    )


def _choose(folder: Path, tables: list[Table]) -> Table | None:
    """The manifest of a folder; None if it has none.

    Raises
    ------
    FolderError: it has more than one.
    """
    manifests = [table for table in tables if table.file.parent == folder and table.is_manifest]
    named = [table for table in manifests if _is_ours(table)] or [table for table in manifests if _is_usable(table)]
    if len(named) > 1:
        names = " and ".join(table.file.name for table in named)
        raise FolderError(
            f"folder {printable_path(folder)} has the tables {names}: set data-path to one of them",
            f"there are {len(named)} tables, and none is chosen",
        )
    return named[0] if named else None


def explain_unused(root: Path, folders: list[Path]) -> list[str]:
    """One line for each table in some folders below `root`, or one level below them, that cannot be used, and why."""
    lines = []
    for file in dict.fromkeys(file for folder in folders for file in find_tables(folder, depth=2)):
        try:
            table = open_table(file)
            if not is_open_images(table):
                _manifest(table)
        except FolderError as error:
            lines.append(f"{printable_path(file.relative_to(root))} is not used: {error}")
    return lines


def _is_ours(table: Table) -> bool:
    """Whether a table has the very columns of a manifest, so that it is surely meant."""
    return {"path", "label"}.issubset(table.header)


def _is_usable(table: Table) -> bool:
    try:
        return bool(_manifest(table))
    except FolderError:
        return False


def _open_or_none(file: Path) -> Table | None:
    """A table that the user did not name; None if it cannot be read, since it may be any file."""
    try:
        return open_table(file)
    except FolderError:
        return None


def _manifest(table: Table) -> Listing:
    """
    Raises
    ------
    FolderError: the table lacks a column, or names no image that is there.
    """
    file, entries, problems, columns = table.file, [], [], table.columns
    if missing := [key for key in ("path", "label") if key not in columns]:
        raise FolderError(
            f"table {printable_path(file)} lacks the columns path and label (or those of Open Images): its first line "
            f"'{', '.join(table.header)[:100]}' has no {' and no '.join(missing)}",
            "a table lacks the columns path and label",
        )
    for number, row in enumerate(table.rows(), table.header_line + 1):
        where = f"{file.name} line {number}"
        said = {key: row.get(name, "") for key, name in columns.items()}
        path = find_file(file.parent, said["path"])
        if not said["path"] or not said["label"]:
            problems.append(f"{where} has no path or no label")
        elif not path:
            problems.append(f"{where}: there is no file {said['path']}")
        elif not is_image(path):
            problems.append(f"{where}: {said['path']} does not have the suffix of an image")
        else:
            label = parse_class_name(said["label"], f"table {printable_path(file)}")
            entries.append(Entry(path, label, parse_split(said.get("split", ""), where), said.get("domain") or None))
    if not entries:
        why = f" ({problems[0]})" if problems else ""
        raise FolderError(
            f"table {printable_path(file)} names no image that is there{why}: write paths relative to the table's "
            "folder",
            "a table names no image that is there",
        )
    if len({entry.split is None for entry in entries}) > 1:
        raise FolderError(
            f"table {printable_path(file)} gives a split for some images only: give one for every image, or for none",
            "a table gives a split for some images only",
        )
    doubts = [f"{file.name} {table.doubt}"] if table.doubt else []
    others = [name for name in COLUMNS["label"] if name in table.header and name != columns["label"]]
    if others:
        doubts.append(f"{file.name}: the classes are those of column '{columns['label']}', not of '{others[0]}'")
    return Listing("CSV manifest", file.parent, entries, problems, unlisted=UNLISTED, doubts=doubts)


def find_file(folder: Path, written: str) -> Path | None:
    """The file that a table or list means, whose paths may have been written on Windows; None if there is none."""
    for spelling in dict.fromkeys([written, written.replace("\\", "/")]):
        if spelling and os.path.isfile(path := folder / spelling):
            plain = Path(os.path.normpath(path))
            # After a link to a folder, `..` is another folder than the one that the text seems to name.
            return plain if os.path.realpath(plain) == os.path.realpath(path) else path
    return None
