"""A client leaves: its upload and its images go, and the model is made again without them."""

import json
import shutil
from contextlib import suppress

from common.config import Config, ConfigError
from common.names import safe_name
from common.storage.atomic import write_json
from common.upload import is_whole
from fedlmg_server import pipeline
from fedlmg_server.monitor.text import plain
from fedlmg_server.workspace import Workspace


def forget(client: str, workspace: Workspace, config: Config) -> None:
    """Remove what came from the client or was made from it, then distil and report again; the model's bytes are those
    of a run without that client from the start. An interrupted call is continued by the next one.

    The model is gone at once, even where too few clients stay for another. A virtual client's own cache, which lies in
    the workspace, is removed as well; a real client keeps what is on its own machine.

    Raises
    ------
    ConfigError: no such client, or fewer clients stay than `min-clients`.
    """
    known = _names(workspace)
    client = known.get(client, client)
    if safe_name(client) not in known and client not in workspace.forgotten:
        there = ", ".join(sorted(map(plain, known.values()))) or "none"
        raise ConfigError(f"no client '{client}' in {workspace.root}: there are {there}")
    write_json(workspace.root / "forgotten.json", sorted({*workspace.forgotten, client}))
    folders = [workspace.model, workspace.report, workspace.upload(client), workspace.quarantine / safe_name(client)]
    if safe_name(client) == client:
        # A virtual client's name is a folder's; what a stranger calls itself may be a path.
        folders.append(workspace.root / "virtual-clients" / client)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    workspace.remove_images(client)
    workspace.log("client", name=client, state="forgotten", reason="")
    if not any(map(is_whole, workspace.uploads.glob("*"))):
        raise ConfigError(f"client '{client}' is forgotten, and no other upload is left to make a model from")
    pipeline.aggregate(config, workspace)
    pipeline.report(config, workspace, {}, {}, {})


def _names(workspace: Workspace) -> dict[str, str]:
    """Folder of a client -> its name: what its manifest says, else the folder's own."""
    found = {}
    for folder in (*workspace.uploads.glob("*"), *workspace.quarantine.glob("*")):
        found[folder.name] = folder.name
        with suppress(OSError, ValueError, TypeError, KeyError):
            name = json.loads((folder / "manifest.json").read_text())["client"]
            if safe_name(name) == folder.name:
                found[folder.name] = name
    return found
