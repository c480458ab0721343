"""The clients that the operator had removed: a run knows them again by salted hashes, and keeps no name."""

import hashlib
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from common.storage.atomic import write_json


class Forgotten:
    """`name in forgotten` says whether a client was removed; `len` counts the removed clients.

    A hash hides a name from whoever reads or searches the workspace, not from one who guesses it: the salt lies beside
    it, for the run must tell whether a client that comes is one of them.
    """

    def __init__(self, path: Path) -> None:
        """path: the file, which need not exist."""
        self._path = path
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if isinstance(content, list):  # of an earlier version, which kept the names
            content = {"names": content}
        self._salt: str = content.get("salt") or secrets.token_hex(16)
        self._hashes: set[str] = {*content.get("clients", []), *map(self._hash, content.get("names", []))}

    def _hash(self, name: str) -> str:
        return hashlib.sha256(f"{self._salt}/{name}".encode()).hexdigest()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._hash(name) in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, names: Iterable[str]) -> None:
        """Remember that these clients were removed."""
        self._hashes |= set(map(self._hash, names))
        write_json(self._path, {"salt": self._salt, "clients": sorted(self._hashes)})
