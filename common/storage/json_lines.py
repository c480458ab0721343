"""Files of one JSON object a line, written to bit by bit: what a crash has cut short is passed over."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def append(file: Path, entries: Iterable[Mapping[str, Any]], is_durable: bool = False) -> None:
    """On new lines, whatever a crash has left of the last one; `is_durable`: on the disk when this returns."""
    with open(file, "a+b") as lines:
        if lines.tell() and not _ends_a_line(lines):
            lines.write(b"\n")
        lines.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        if is_durable:
            lines.flush()
            os.fsync(lines.fileno())


def _ends_a_line(lines: BinaryIO) -> bool:
    lines.seek(-1, os.SEEK_END)
    return lines.read() == b"\n"


def read(file: Path) -> Iterator[dict[str, Any]]:
    """Every whole line."""
    for line in file.read_bytes().splitlines():
        if (entry := parse(line)) is not None:
            yield entry


def parse(line: bytes) -> dict[str, Any] | None:
    """The object on a line; None for what was cut short."""
    with suppress(ValueError):
        if isinstance(entry := json.loads(line), dict):
            return entry
    return None
