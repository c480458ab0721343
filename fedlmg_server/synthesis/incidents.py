"""What happens while workers draw: at which client and batch each is, and whose images cannot be drawn, on the disk.

A worker writes before each batch where it is, so that a process that dies hard still tells at whose batch it died. The
folder `incidents/` of the workspace is there while images are drawn, and is removed afterwards.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from common.names import safe_name
from common.storage.atomic import write_json
from fedlmg_server.events import Note
from fedlmg_server.monitor.text import shorten
from fedlmg_server.quarantine import ClientFault, is_servers_own
from fedlmg_server.workspace import Workspace


@dataclass(frozen=True)
class Position:
    """Where a process is: the client that it draws for, and the number of the batch, from 1; 0 before the first."""

    client: str
    batch: int


@contextmanager
def drawing(workspace: Workspace, client: str, batch: int) -> Iterator[None]:
    """This process draws for a client: what fails in the block is charged to the client, unless it is the server's own.

    Raises
    ------
    ClientFault: the block raised.
    """
    path = _position(workspace, os.getpid())
    write_json(path, asdict(Position(client, batch)))
    try:
        yield
    except Exception as error:
        path.unlink(missing_ok=True)
        if is_servers_own(error):
            raise
        raise ClientFault({client: f"its images cannot be drawn ({type(error).__name__}: {error})"}) from error
    path.unlink(missing_ok=True)


def take_position(workspace: Workspace, process_id: int) -> Position | None:
    """Where a process was when it ended, once; None if it did not end in the middle of drawing."""
    path = _position(workspace, process_id)
    if not path.exists():
        return None
    position = Position(**json.loads(path.read_text(encoding="utf-8")))
    path.unlink()
    return position


def note_failure(workspace: Workspace, client: str, reason: str) -> None:
    """From now on no process draws for the client. reason: a clause."""
    if not has_failed(workspace, client):
        write_json(_failure(workspace, client), {"client": client, "reason": shorten(reason)})
        workspace.log(Note(text=shorten(f"'{client}': {reason}; the rest of its images is not drawn")))


def has_failed(workspace: Workspace, client: str) -> bool:
    return _failure(workspace, client).exists()


def read_failures(workspace: Workspace) -> dict[str, str]:
    """Client -> why its images cannot be drawn."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_folder(workspace).glob("failed/*.json"))]
    return {entry["client"]: entry["reason"] for entry in found}


def clear(workspace: Workspace) -> None:
    shutil.rmtree(_folder(workspace), ignore_errors=True)


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "incidents"


def _position(workspace: Workspace, process_id: int) -> Path:
    return _folder(workspace) / f"at-{process_id}.json"


def _failure(workspace: Workspace, client: str) -> Path:
    return _folder(workspace) / "failed" / f"{safe_name(client)}.json"
