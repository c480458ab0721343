"""Opening a table of images: its encoding, its delimiter, and what its columns say."""

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.datasets.readers.image_files import printable_path
from common.datasets.readers.listing import FolderError
from common.datasets.readers.texts import find_encoding
from common.datasets.readers.words import is_litter

COLUMNS = {
    "path": (
        "path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "image", "image_name", "img",
        "img_path",
    ),
    "label": ("label", "class", "class_name", "classname", "label_name", "category", "labels"),
    "split": ("split", "subset"),
    "domain": ("domain",),
}  # fmt: skip
"""What a table says of an image -> names of the column that says it; the first that is there is taken."""
MAX_DEPTH = 3
"""Tables are looked for in a folder, and in this many levels less one below."""
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """One table, without the line `sep=;` that Excel may write before it."""

    file: Path
    encoding: str
    header_line: int
    """Number of the header in the file, from 1."""
    header: list[str]
    """Names of the columns, in lower case."""
    delimiter: str
    doubt: str
    """What may be wrong with its encoding, in words that follow its name; empty if nothing is."""

    @property
    def columns(self) -> dict[str, str]:
        """What the table says of images (`path`, `label`, `split`, `domain`) -> the column that says it."""
        found = {key: [name for name in names if name in self.header] for key, names in COLUMNS.items()}
        return {key: names[0] for key, names in found.items() if names}

    @property
    def is_manifest(self) -> bool:
        """Whether it gives the class of each image."""
        return self.columns.keys() >= {"path", "label"}

    def rows(self) -> Iterator[dict[str, str]]:
        """The rows by the columns' names in lower case.

        Raises
        ------
        FolderError: they are no table.
        """
        try:
            with open(self.file, encoding=self.encoding, newline="") as stream:
                lines = itertools.islice(stream, self.header_line, None)
                for row in csv.DictReader(lines, self.header, delimiter=self.delimiter, restval="", strict=True):
                    yield {name: (value or "").strip() for name, value in row.items() if name is not None}
        except (OSError, UnicodeError, csv.Error) as error:
            raise unreadable(self.file, error) from None


def find_tables(folder: Path, depth: int = MAX_DEPTH) -> list[Path]:
    """The files `.csv` and `.tsv` in a folder and `depth - 1` levels below, those of the folder first."""
    found = [file for deep in range(depth) for file in sorted(folder.glob("*/" * deep + "*.[ctCT][sS][vV]"))]
    return [file for file in found if file.is_file() and not is_litter(file.name)]


def open_table(file: Path) -> Table:
    """
    Raises
    ------
    FolderError: the file cannot be read, or is no table.
    """
    try:
        encoding, doubt = find_encoding(file)
        with open(file, encoding=encoding, newline="") as stream:
            first, second = stream.readline(), stream.readline()
        said = first.strip().lower().replace('"', "")
        has_hint = said.startswith("sep=") and len(said) == len("sep=;")
        header = second if has_hint else first
        delimiter = said[-1] if has_hint else max(DELIMITERS, key=header.count)
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(file, error) from None
    return Table(file, encoding, 2 if has_hint else 1, names, delimiter, doubt)


def unreadable(file: Path, error: Exception) -> FolderError:
    """What to raise if a table cannot be read."""
    return FolderError(f"table {printable_path(file)} cannot be read: {error}", "a table cannot be read")
