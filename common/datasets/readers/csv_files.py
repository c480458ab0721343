"""Tables that give each image's class: a manifest of the user's own, or the labels of Open Images.

Manifest      columns `path`, `label` and optionally `split` and `domain`; paths are relative to the table's folder
Open Images   columns `ImageID,Source,LabelName,Confidence`, as in `oidv6-train-annotations-human-imagelabels.csv` or
              in FiftyOne's `train/labels/classifications.csv`. Images are `ImageID.jpg` anywhere below the folder.
              Class names are in `*class-descriptions*.csv` or `train/metadata/classes.csv`; keep only your classes
              in that file.

An image of Open Images counts for a class at a Confidence of at least 0.5. It does not count if a human (a Source other
than `machine`) said that the class is absent. Images that show more than one of the classes are left out.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.datasets.readers.image_files import is_image, printable_path, walk_images
from common.datasets.readers.listing import SPLITS, Entry, FolderError, Listing, parse_class_name, parse_split

MANIFEST, OPEN_IMAGES = {"path", "label"}, {"imageid", "labelname", "confidence"}
MIN_CONFIDENCE = 0.5
MAX_DEPTH = 3
UNREADABLE = "a table cannot be read"


def read_table(file: Path) -> Listing:
    """List the images that a CSV file names.

    Raises
    ------
    FolderError: the table cannot be read, or it lacks a column.
    """
    columns = _columns(file)
    if columns >= OPEN_IMAGES:
        return _open_images(file.parent, [file])
    if columns >= MANIFEST:
        return _manifest(file)
    raise FolderError(
        f"table {printable_path(file)} lacks the columns path and label (or those of Open Images): add a header line",
        "a table lacks the columns path and label",
    )


def find_listing(folder: Path) -> Listing | None:
    """List the images that the tables in a folder name; None if the folder has no such table.

    Raises
    ------
    FolderError: a table cannot be read or lacks a column, or the folder has more than one manifest.
    """
    tables = [
        file for depth in range(MAX_DEPTH) for file in sorted(folder.glob("*/" * depth + "*.csv")) if file.is_file()
    ]
    columns = {file: _columns_or_none(file) for file in tables}
    if labels := [file for file in tables if columns[file] >= OPEN_IMAGES]:
        return _open_images(folder, labels)
    manifests = [file for file in tables if file.parent == folder and columns[file] >= MANIFEST]
    if len(manifests) > 1:
        names = " and ".join(file.name for file in manifests)
        raise FolderError(
            f"folder {printable_path(folder)} has the tables {names}: set data-path to one of them",
            f"there are {len(manifests)} tables, and none is chosen",
        )
    return _manifest(manifests[0]) if manifests else None


def _columns(file: Path) -> set[str]:
    return set(next(_rows(file), ()))


def _columns_or_none(file: Path) -> set[str]:
    """The columns of a table that the user did not name; empty if it cannot be read, since it may be any file."""
    try:
        return _columns(file)
    except FolderError:
        return set()


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Yield the rows as dictionaries with lower-case keys; fields are separated by commas, semicolons or tabs."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            for row in csv.DictReader(stream, names, delimiter=delimiter, restval="", strict=True):
                yield {name: (value or "").strip() for name, value in row.items() if name is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FolderError(f"table {printable_path(file)} cannot be read: {error}", UNREADABLE) from None


def _manifest(file: Path) -> Listing:
    entries, problems = [], []
    for number, row in enumerate(_rows(file), 2):
        where = f"{file.name} line {number}"
        if not row["path"] or not row["label"]:
            problems.append(f"{where} has no path or no label")
        elif not os.path.isfile(path := file.parent / row["path"]):
            problems.append(f"{where}: there is no file {row['path']}")
        elif not is_image(path):
            problems.append(f"{where}: {row['path']} does not have the suffix of an image")
        else:
            label = parse_class_name(row["label"], f"table {printable_path(file)}")
            entries.append(Entry(path, label, parse_split(row.get("split", ""), where), row.get("domain") or None))
    if not entries:
        raise FolderError(
            f"table {printable_path(file)} names no image that is there: write paths relative to the table's folder",
            "a table names no image that is there",
        )
    if len({entry.split is None for entry in entries}) > 1:
        raise FolderError(
            f"table {printable_path(file)} gives a split for some images only: give one for every image, or for none",
            "a table gives a split for some images only",
        )
    return Listing("CSV manifest", file.parent, entries, problems)


def _open_images(root: Path, tables: list[Path]) -> Listing:
    problems: list[str] = []
    images = {path.stem: path for path in walk_images(root, [])}
    names = _descriptions(root)
    labels: dict[tuple[str, str], bool] = {}
    verified, splits, missing = set(), {}, set()
    for table in tables:
        split = _split_of(table.relative_to(root))
        for row in _rows(table):
            image, label = row["imageid"], row["labelname"]
            if label not in names:
                continue
            if image not in images:
                missing.add(image)
                continue
            try:
                present = float(row["confidence"]) >= MIN_CONFIDENCE
            except ValueError:
                problems.append(f"{table.name}: image {image} has the Confidence '{row['confidence']}', not a number")
                continue
            splits[image] = split
            human = row.get("source") != "machine"
            if human or (image, label) not in verified:
                labels[image, label] = present
            if human:
                verified.add((image, label))
    shows: dict[str, list[str]] = {}
    for (image, label), present in labels.items():
        if present:
            shows.setdefault(image, []).append(label)
    single = {image: found[0] for image, found in shows.items() if len(found) == 1}
    if several := len(shows) - len(single):
        problems.append(f"{several} images show several of the {len(names)} classes and are left out")
    if missing:
        problems.append(f"{len(missing)} labelled images are not below {printable_path(root)}")
    if not single:
        raise FolderError(
            f"Open Images folder {printable_path(root)} has no image that shows just one of its classes: check the "
            "table of class names",
            "no image shows just one of the classes",
        )
    entries = [Entry(images[image], names[label], splits[image]) for image, label in sorted(single.items())]
    return Listing("Open Images tables", root, entries, problems)


def _descriptions(root: Path) -> dict[str, str]:
    """Label id (`/m/...`) -> class name; if two ids have the same name, the id is added to it."""
    files = [file for depth in range(MAX_DEPTH) for file in sorted(root.glob("*/" * depth + "*class*.csv"))]
    pairs: dict[str, str] = {}
    for file in files:
        try:
            with open(file, encoding="utf-8-sig", newline="") as stream:
                rows = [row for row in csv.reader(stream) if len(row) >= 2 and row[0].startswith("/")]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FolderError(f"table {printable_path(file)} cannot be read: {error}", UNREADABLE) from None
        pairs |= {row[0].strip(): parse_class_name(row[1], f"table {printable_path(file)}") for row in rows}
    if not pairs:
        raise FolderError(
            f"Open Images folder {printable_path(root)} has no table of class names: add class-descriptions.csv",
            "there is no table of class names",
        )
    uses = Counter(pairs.values())
    return {label: f"{name} ({label})" if uses[name] > 1 else name for label, name in pairs.items()}


def _split_of(table: Path) -> str | None:
    words = [word for part in table.parts for word in part.lower().replace(".", "-").replace("_", "-").split("-")]
    return next((SPLITS[word] for word in words if word in SPLITS), None)
