"""Files with one JSON object on each line, to which lines are appended; lines that a crash cut short are skipped."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def append(file: Path, entries: Iterable[Mapping[str, Any]], is_durable: bool = False) -> None:
    """Append each entry as a line of its own, even if a crash has left the last line of the file incomplete.

    is_durable: wait until the lines are on the disk.

    Raises
    ------
    OSError: the file cannot be written; the error names it.
    """
    try:
        with open(file, "a+b") as lines:
            if lines.tell() and not _ends_a_line(lines):
                lines.write(b"\n")
            lines.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
            if is_durable:
                lines.flush()
                os.fsync(lines.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None


def _ends_a_line(lines: BinaryIO) -> bool:
    lines.seek(-1, os.SEEK_END)
    return lines.read() == b"\n"


def read(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the object on each complete line."""
    for line in file.read_bytes().splitlines():
        if (entry := parse(line)) is not None:
            yield entry


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a line, or None if the line is incomplete."""
    with suppress(ValueError):
        if isinstance(entry := json.loads(line), dict):
            return entry
    return None


class Tail:
    """The objects of a file that grows; a file that does not exist yet has none.

    skips_existing: objects that the file has now are never returned.
    """

    def __init__(self, file: Path, skips_existing: bool = False) -> None:
        self._file = file
        self._offset = file.stat().st_size if skips_existing and file.exists() else 0

    def read_new(self) -> Iterator[dict[str, Any]]:
        """The objects that this method has not returned before; a line without its end waits for the next call."""
        if not self._file.exists():
            return
        with open(self._file, "rb") as lines:
            lines.seek(self._offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if (entry := parse(line)) is not None:
                    yield entry
