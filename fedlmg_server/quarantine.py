"""Quarantine: the uploads that a run goes on without, each beside the reason, whoever found it and whenever.

Validation puts an upload there before anything is drawn. What fails later because of one client, in a worker or in the
distillation, is charged to that client: its upload goes to quarantine in the middle of the run, and stays there.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

from common import manifest
from common.config import ConfigError
from common.manifest import ManifestError
from common.names import safe_name
from common.storage.atomic import write_json
from common.upload import is_whole
from fedlmg_server.events import ClientEvent
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace

REASON = "reason.json"


class QuorumError(ConfigError):
    """Too few uploads arrived by the deadline, or are valid; the message gives the reason for each missing client."""


class ClientFault(RuntimeError):
    """Something of clients made the server's work fail. reasons: client -> what, in a clause."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(f"client '{client}': {reason}" for client, reason in reasons.items()))
        self.reasons = reasons


def is_servers_own(error: Exception) -> bool:
    """Whether an error has nothing to do with the client for which the server was working: its disk is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def charge(run: Run, reasons: dict[str, str]) -> None:
    """Go on without clients: move their uploads to quarantine, remove what was made from them, and read the rest anew.

    The same upload is not tried again, by no later command, until the operator deletes its folder in quarantine.

    reasons: client -> what is wrong with it, in a clause.

    Raises
    ------
    ConfigError: fewer than `min-clients` uploads remain.
    """
    workspace = run.workspace
    for client, reason in reasons.items():
        folder = safe_name(client)
        again = f"to try this upload again, delete 'quarantine/{folder}' in the workspace and repeat the command"
        quarantine(workspace, folder, f"client '{client}': {reason}; {again}", is_final=True)
        workspace.remove_work(client)
    run.reread_uploads()
    check_quorum(run)


def charge_failed(run: Run, reasons: dict[str, str]) -> None:
    """Charge clients for which the same work failed that was done for the others; reasons: client -> clause.

    Raises
    ------
    ConfigError: it failed for every client, which is more likely the server's own fault, and nobody is charged; or
        fewer than `min-clients` uploads remain.
    """
    if {upload.client for upload in run.uploads} <= set(reasons):
        raise ConfigError(
            f"the run cannot go on with any of its clients, so none is charged ({ClientFault(reasons)}): check the "
            "diffusion model, the settings of guidance and this machine's memory, and repeat the command"
        )
    charge(run, reasons)


def quarantine(workspace: Workspace, folder: str, reason: str, is_final: bool = False) -> None:
    """Store the reason beside the upload in a folder, and move both out of the workspace's uploads.

    is_final: the same upload goes there unseen if the client sends it again.
    """
    source, target = workspace.uploads / folder, workspace.quarantine / folder
    write_json(source / REASON, {"reason": reason} | ({"upload": _digest(source)} if is_final else {}))
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    workspace.log(ClientEvent(name=name_client(target), state="quarantined", reason=reason))


def find_charge(workspace: Workspace, folder: str) -> str:
    """Why the upload in a folder was charged to its client by an earlier command; empty if it was not."""
    path = workspace.quarantine / folder / REASON
    said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return said["reason"] if said.get("upload") == _digest(workspace.uploads / folder) else ""


def read_rejections(workspace: Workspace) -> dict[str, str]:
    """Client -> why its upload was rejected, for all clients without a newer, valid upload."""
    return {
        name_client(path.parent): json.loads(path.read_text(encoding="utf-8"))["reason"]
        for path in sorted(workspace.quarantine.glob(f"*/{REASON}"))
        if not is_whole(workspace.uploads / path.parent.name)
    }


def name_client(folder: Path) -> str:
    """The client of an upload's folder. The name is in its manifest; if that cannot be read, it is the folder's."""
    name = ""
    try:
        name = manifest.read(folder).client
    except ManifestError as error:
        name = error.client
    except OSError:
        pass
    return name if safe_name(name) == folder.name else folder.name


def check_quorum(run: Run) -> None:
    """
    Raises
    ------
    QuorumError: fewer valid uploads than `min-clients`; the message has the reason of each that was rejected.
    """
    least = run.config.clients.min_clients
    if len(run.uploads) < least:
        rejected = read_rejections(run.workspace)
        reasons = "; ".join(f"{client}: {reason}" for client, reason in rejected.items())
        raise QuorumError(f"{len(run.uploads)} valid uploads, but 'min-clients' is {least} ({reasons})")


def _digest(folder: Path) -> str:
    """sha256 of an upload's weights and statistics; the manifest, which also tells seconds, is left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
