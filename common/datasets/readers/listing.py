"""What a data folder of any layout contains: image files with their class, split and domain."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.datasets.readers.image_files import printable_path
from common.telling import ToldError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "crossval"), "validation"),
    "test": "test",
}
"""The names of splits in folders, lists and tables -> `train`, `validation` or `test`."""


class FolderError(ToldError):
    """The folder cannot be used as a dataset; the message is one sentence for the user.

    problem: what is wrong, in words for the server that name nothing in or of the folder.
    """

    def __init__(self, message: str, problem: str = "they are not as they should be") -> None:
        super().__init__(message, f"its images cannot be used: {problem}")


@dataclass(frozen=True)
class Entry:
    """One image file."""

    path: Path
    label: str
    split: str | None = None
    """`train`, `validation` or `test`; None if the layout gives no splits."""
    domain: str | None = None
    """The domain's name; None if the layout gives no domains."""


@dataclass(frozen=True)
class Listing:
    """The image files of a data folder, before any of them is read."""

    layout: str
    """The layout that was recognised, in words for the user."""
    root: Path
    """The folder in which every file should lie."""
    entries: list[Entry]
    problems: list[str] = field(default_factory=list)
    """One line for each file or row that was left out."""
    empty_classes: tuple[str, ...] = ()
    """Classes that the layout names without giving a file."""

    def part(self, domain: str) -> "Listing":
        """The listing of one domain.

        Raises
        ------
        FolderError: there is no such domain; the message lists the domains.
        """
        entries = [entry for entry in self.entries if entry.domain == domain]
        if not entries:
            there = ", ".join(sorted({entry.domain for entry in self.entries if entry.domain})) or "none"
            raise FolderError(
                f"{printable_path(self.root)} has no part '{domain}': choose one of its parts ({there})",
                "they have no part of the name that it gives",
            )
        return replace(self, layout=f"{self.layout}, part {domain}", entries=entries)


def parse_split(text: str, where: str) -> str | None:
    """The split that `text` names; None if it is empty.

    Raises
    ------
    FolderError: the text names no split; `where` says in which file and line.
    """
    if not text.strip():
        return None
    if text.strip().lower() not in SPLITS:
        raise FolderError(
            f"{where}: '{text}' is no split; write train, validation or test", "a table names an unknown split"
        )
    return SPLITS[text.strip().lower()]


def parse_class_name(text: str, where: str) -> str:
    """The class name without outer blanks, in Unicode's composed form, which is the same on every operating system.

    Raises
    ------
    FolderError: the name is empty, or its bytes are not UTF-8.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not name or not _is_utf8(name):
        raise FolderError(f"{where} has a class without a readable name: rename it", "a class has no readable name")
    return name


def check_distinct_in_case(names: Iterable[str], where: Path) -> None:
    """Check that no two class names differ only in upper and lower case, since some file systems cannot separate them.

    Raises
    ------
    FolderError: two names differ only in case; the message gives both.
    """
    seen: dict[str, str] = {}
    for name in sorted(names):
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise FolderError(
                f"classes '{other}' and '{name}' of {printable_path(where)} differ only in case: rename or join them",
                "two classes differ only in upper and lower case",
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
