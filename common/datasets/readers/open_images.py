"""The labels of Open Images: tables with columns `ImageID,Source,LabelName,Confidence`.

They are `oidv6-train-annotations-human-imagelabels.csv` and the like, or FiftyOne's `train/labels/classifications.csv`.
Images are `ImageID.jpg` anywhere below the folder. Class names are in `*class-descriptions*.csv` or
`train/metadata/classes.csv`; keep only your classes in that file.

An image counts for a class at a Confidence of at least 0.5. It does not count if a human (a Source other than
`machine`) said that the class is absent. Images that show more than one of the classes are left out.
"""

import csv
from collections import Counter
from pathlib import Path

from common.datasets.readers.image_files import printable_path
from common.datasets.readers.listing import Entry, FolderError, Listing, parse_class_name
from common.datasets.readers.tables import MAX_DEPTH, Table, unreadable
from common.datasets.readers.texts import find_encoding
from common.datasets.readers.tree import list_images
from common.datasets.readers.words import SPLITS

OPEN_IMAGES = {"imageid", "labelname", "confidence"}
MIN_CONFIDENCE = 0.5


def is_open_images(table: Table) -> bool:
    """Whether a table has the columns of Open Images."""
    return OPEN_IMAGES.issubset(table.header)


def read_labels(root: Path, tables: list[Table]) -> Listing:
    """List the images of a folder that surely show just one of its classes.

    Raises
    ------
    FolderError: no image does, or there are no class names.
    """
    problems: list[str] = []
    images = {path.stem: path for path in list_images(root, {})}
    names = _descriptions(root)
    labels: dict[tuple[str, str], bool] = {}
    verified, splits, missing = set(), {}, set()
    for table in tables:
        split = _split_of(table.file.relative_to(root))
        for row in table.rows():
            image, label = row["imageid"], row["labelname"]
            if label not in names:
                continue
            if image not in images:
                missing.add(image)
                continue
            try:
                present = float(row["confidence"]) >= MIN_CONFIDENCE
            except ValueError:
                problems.append(
                    f"{table.file.name}: image {image} has the Confidence '{row['confidence']}', not a number"
                )
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
    unlisted = "that do not surely show just one of the classes"
    return Listing("Open Images tables", root, entries, problems, unlisted=unlisted)


def _descriptions(root: Path) -> dict[str, str]:
    """Label id (`/m/...`) -> class name; if two ids have the same name, the id is added to it."""
    files = [file for depth in range(MAX_DEPTH) for file in sorted(root.glob("*/" * depth + "*class*.csv"))]
    pairs: dict[str, str] = {}
    for file in files:
        try:
            with open(file, encoding=find_encoding(file)[0], newline="") as stream:
                rows = [row for row in csv.reader(stream) if len(row) >= 2 and row[0].startswith("/")]
        except (OSError, ValueError, csv.Error) as error:
            raise unreadable(file, error) from None
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
