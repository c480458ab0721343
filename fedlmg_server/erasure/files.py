"""Rewrite the files that a run keeps for all clients together: events, records, logs; delete what is one client's."""

import json
import mmap
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.names import is_plain_name
from common.storage import json_lines
from common.storage.atomic import write_bytes, write_json
from fedlmg_server import class_notes, run_record
from fedlmg_server.erasure.trackers import erase_from_trackers
from fedlmg_server.erasure.words import Words
from fedlmg_server.synthesis import incidents
from fedlmg_server.workspace import METHODS, Workspace

NOT_BY_CLIENT = ("general", "trackers", "baselines")
"""Folders of a workspace whose entries are not named after clients."""
BY_CLIENT = (
    *("uploads", "quarantine", "virtual-clients", "witness", "synthetic"),
    *(f"synthetic-{method}" for method in METHODS),
)
"""Folders of a workspace that hold one folder or file for each client, and in it what came from that client alone."""
KEPT = (run_record.FILE, "forgotten.json", class_notes.FILE)
"""Records of the run that name no client but by its folder or its hash: a word of them that is also a client's name, as
a key or a class may be, stays."""
OF_THE_RUN = ("stage", "progress", "plan", "estimate", "run")
"""Kinds of events that tell of no client, but perhaps in the reason why a run failed."""


def erase(workspace: Workspace, words: Words) -> None:
    """Delete what has the client's name in every room of the workspace, and take its words out of what is left.

    In a room that this function does not know, that is every folder and file of that name, and every other JSON file.
    Not touched are the files `KEPT`, and what came from other clients. `find_words` tells what remains.
    """
    root = workspace.root
    incidents.clear(workspace)
    for path in _entries_of(root, words):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    for path in root.rglob(".*.part"):  # of writes that a crash cut short
        path.unlink()
    if workspace.events.exists():
        kept = [entry for line in json_lines.read(workspace.events) if (entry := _clean_event(line, words))]
        write_bytes(workspace.events, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
    in_rooms = [path for path in _files_of_rooms(root) if path.relative_to(root).parts[0] not in BY_CLIENT]
    for path in (path for path in (*root.iterdir(), *in_rooms) if path.suffix == ".json" and path.is_file()):
        if path.name not in KEPT or path.parent != root:
            _clean_json(path, words)
    for path in (*root.glob("*.log"), *root.glob("logs/*")):
        lines = path.read_bytes().splitlines(keepends=True)
        if len(kept_lines := [line for line in lines if not words.are_in(line)]) < len(lines):
            write_bytes(path, b"".join(kept_lines))
    erase_from_trackers(root / "trackers", words)


def _files_of_rooms(root: Path) -> Iterator[Path]:
    """Files and folders of all rooms; of a room with a folder for each client only these folders."""
    for room in [path for path in root.iterdir() if path.is_dir() and path.name not in NOT_BY_CLIENT]:
        yield from list(room.iterdir() if room.name in BY_CLIENT else room.rglob("*"))


def _entries_of(root: Path, words: Words) -> list[Path]:
    """`ROOM/CLIENT` and `ROOM/CLIENT.json` for every room. A name that is no file name is never used as one.

    A folder is compared with its whole name: `site.1f2e3d4c` may be another client's.
    """
    # A virtual client's cache has its plain name, in upper case or not.
    names = {words.folder} | ({words.name} if is_plain_name(words.name) else set())
    return [path for path in _files_of_rooms(root) if path.name in names or (path.is_file() and path.stem in names)]


def _clean_event(entry: dict[str, Any], words: Words) -> dict[str, Any] | None:
    """The event without the client, or None if it is one of the client's."""
    if entry.get("kind") in OF_THE_RUN:
        return entry | ({"reason": words.replace_in(str(entry["reason"]))} if "reason" in entry else {})
    if entry.get("kind") == "loss":
        _, _, client = str(entry.get("series")).partition(", ")
        return None if client == words.name else entry
    told = {key: value for key, value in entry.items() if key not in ("kind", "state")}
    is_about = any(map(words.is_one, told.values())) or (entry.get("kind") == "note" and words.are_in(entry["text"]))
    return None if is_about else entry | {key: words.take_out_of(value) for key, value in told.items()}


def _clean_json(path: Path, words: Words) -> None:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return
    if (cleaned := words.take_out_of(content)) != content:
        write_json(path, cleaned)


def find_words(root: Path, words: Words) -> list[str]:
    """Paths below `root` of all files that hold the client's words, or have them in their path."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and (words.are_in(str(path.relative_to(root))) or _holds(path, words))
    )


def _holds(path: Path, words: Words) -> bool:
    if not path.stat().st_size:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        is_text = b"\0" not in content[: mmap.PAGESIZE]
        return words.are_in(content[:]) if is_text else words.are_in_binary(content)
