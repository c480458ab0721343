"""What a data folder of any layout contains: image files with their class, split and domain."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.datasets.readers.image_files import printable_path
from common.datasets.readers.tree import LeftOut, Reason
from common.datasets.readers.words import SPLITS
from common.labels import fold_name
from common.names import LONGEST_NAME, is_sane_name
from common.telling import ToldError


class FolderError(ToldError):
    """The folder cannot be used as a dataset; the message is one sentence for the user.

    problem: what is wrong, in words for the server that name nothing in or of the folder.
    """

    def __init__(self, message: str, problem: str = "they are not as they should be") -> None:
        super().__init__(message, f"its images cannot be used: {problem}")
        self.problem = problem


@dataclass(frozen=True)
class Entry:
    """One image file."""

    path: Path
    label: str
    split: str | None = None
    """`train`, `validation` or `test`; None if the layout gives no splits."""
    domain: str | None = None
    """The domain's name; None if the layout gives no domains."""

    def name_below(self, root: Path) -> str:
        """The file's path relative to a folder, as text that can be printed."""
        return printable_path(Path(os.path.relpath(self.path, root)))


@dataclass(frozen=True)
class Listing:
    """The image files of a data folder, before any of them is read."""

    layout: str
    """The layout that was recognised, in words for the user."""
    root: Path
    """The folder in which every file should lie."""
    entries: list[Entry]
    problems: list[str] = field(default_factory=list)
    """One line for each row of a table or list that names no image that is there, or an image again."""
    empty_classes: tuple[str, ...] = ()
    """Classes that the layout names without giving a file."""
    left_out: LeftOut = field(default_factory=dict)
    """Files that are surely not meant, and why."""
    unlisted: str = "that no row names"
    """Words for all other images that lie there, after their number."""
    doubts: list[str] = field(default_factory=list)
    """One line for each thing that may be meant otherwise."""
    below: Path | None = None
    """The folder all of whose files are meant; None if a table or a list was named."""

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
        others = Reason(f"of other parts than '{domain}'", "together")
        left_out = self.left_out | {entry.path: others for entry in self.entries if entry.domain != domain}
        return replace(self, layout=f"{self.layout}, part {domain}", entries=entries, left_out=left_out)


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
    FolderError: the server would not take the name, or its bytes are not UTF-8.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not is_sane_name(name):
        raise FolderError(
            f"{where} has a class without a readable name of 1 to {LONGEST_NAME} printable characters, {name!a}: "
            "rename it",
            "a class has no readable name",
        )
    return name


def check_distinct_names(names: Iterable[str], where: Path) -> None:
    """Check that no two class names differ in case or blanks only: they count as one, and files may not hold both.

    Raises
    ------
    FolderError: two names do; the message gives both.
    """
    seen: dict[str, str] = {}
    for name in sorted(names):
        if (other := seen.setdefault(fold_name(name), name)) != name:
            raise FolderError(
                f"classes '{other}' and '{name}' of {printable_path(where)} differ only in case or blanks: rename or "
                "join them",
                "two classes differ only in case or blanks",
            )
