"""What a data folder says it holds, whatever its layout: image files with their class, split and domain."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.datasets.readers.image_files import printable_path

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "crossval"), "validation"),
    "test": "test",
}
"""What folders, lists and tables call a split -> the split."""


class FolderError(ValueError):
    """A folder that cannot serve as a data set; the message is one sentence for the user."""


@dataclass(frozen=True)
class Entry:
    path: Path
    label: str
    split: str | None = None
    """`train`, `validation` or `test`; None where the layout gives none."""
    domain: str | None = None


@dataclass(frozen=True)
class Listing:
    layout: str
    """What was recognised, for the user."""
    root: Path
    """The folder that every file should lie in."""
    entries: list[Entry]
    problems: list[str] = field(default_factory=list)
    """One line for whatever was left out so far."""
    empty_classes: tuple[str, ...] = ()
    """Classes that the layout names and gives no file."""

    def part(self, domain: str) -> "Listing":
        """The entries of one domain.

        Raises
        ------
        FolderError: no such domain; names those there are.
        """
        entries = [entry for entry in self.entries if entry.domain == domain]
        if not entries:
            there = ", ".join(sorted({entry.domain for entry in self.entries if entry.domain})) or "none"
            raise FolderError(f"{printable_path(self.root)} has no part '{domain}'; its parts: {there}")
        return replace(self, layout=f"{self.layout}, part {domain}", entries=entries)


def parse_split(text: str, where: str) -> str | None:
    """A split by any of its names; empty: None.

    Raises
    ------
    FolderError: the text names no split.
    """
    if not text.strip():
        return None
    if text.strip().lower() not in SPLITS:
        raise FolderError(f"{where}: '{text}' is no split; write train, validation or test")
    return SPLITS[text.strip().lower()]


def parse_class_name(text: str, where: str) -> str:
    """The name in Unicode's composed form, so that it is the same from every operating system, without outer blanks.

    Raises
    ------
    FolderError: it is empty, or its bytes are not UTF-8.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not name or not _is_utf8(name):
        raise FolderError(f"{where} has a class without a readable name: rename it")
    return name


def check_distinct_in_case(names: Iterable[str], where: Path) -> None:
    """
    Raises
    ------
    FolderError: two class names differ only in upper and lower case, which other machines cannot keep apart.
    """
    seen: dict[str, str] = {}
    for name in sorted(names):
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise FolderError(
                f"classes '{other}' and '{name}' of {printable_path(where)} differ only in case: rename or join them"
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
