"""What a run notes of class names: which ones the diffusion model knows, and which ones of clients are left out."""

import json
from pathlib import Path
from typing import Any

from common.names import safe_name
from common.storage.atomic import write_json

FILE = "classes.json"
"""In the workspace."""
LeftOut = dict[str, dict[str, str]]
"""Folder name of a client -> some of its classes, in the client's spelling -> why the run goes on without each."""


class ClassNotes:
    """The notes of one run, in a file; every property reads it anew."""

    def __init__(self, workspace: Path) -> None:
        """workspace: a run's folder; the file need not exist."""
        self._path = workspace / FILE

    @property
    def known(self) -> list[str]:
        """All classes that the diffusion model knows, in its spelling, as validation found; empty if it takes any
        text."""
        return self._read().get("known", [])

    @property
    def told(self) -> LeftOut:
        """What clients were told before they trained."""
        return self._read().get("told", {})

    @property
    def left_out(self) -> LeftOut:
        """What clients were told, and what validation found."""
        told, found = self.told, self._read().get("found", {})
        return {folder: told.get(folder, {}) | found.get(folder, {}) for folder in sorted({*told, *found})}

    def note_told(self, told: LeftOut) -> None:
        """Keep what clients were told, in place of what the same ones were told earlier."""
        write_json(self._path, self._read() | {"told": self.told | told})

    def note_found(self, known: list[str], found: LeftOut) -> None:
        """Keep what validation found, in place of what it found earlier."""
        write_json(self._path, self._read() | {"known": known, "found": found})

    def forget(self, client: str) -> None:
        """Remove what is kept of a client's classes."""
        if content := self._read():
            for part in ("told", "found"):
                content.get(part, {}).pop(safe_name(client), None)
            write_json(self._path, content)

    def _read(self) -> dict[str, Any]:
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
