"""Which uploads are fit to guide and to teach; the others go to quarantine with a reason, and the run goes on."""

import json
import os
import shutil
from pathlib import Path

from common.config import Config
from common.storage.atomic import write_json
from common.upload import Upload, is_whole
from fedlmg_server.collection.upload_checks import Refused, check
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace


def validate_uploads(run: Run) -> dict[str, str]:
    """Quarantine every upload in the workspace that is not valid; returns as `rejected_uploads`. `Run.uploads` then has
    the valid ones."""
    for folder in sorted(filter(is_whole, run.workspace.uploads.glob("*"))):
        try:
            check(load(folder, run.config), run.config)
        except Refused as refusal:
            quarantine(run.workspace, folder.name, str(refusal))
    return rejected_uploads(run.workspace)


def rejected_uploads(workspace: Workspace) -> dict[str, str]:
    """Client's folder name -> why its upload was rejected, now or before, unless a valid one came since."""
    return {
        path.parent.name: json.loads(path.read_text())["reason"]
        for path in sorted(workspace.quarantine.glob("*/reason.json"))
        if not is_whole(workspace.uploads / path.parent.name)
    }


def load(folder: Path, config: Config) -> Upload:
    """Raises Refused, naming the client, unless the folder holds an upload that can be read and is not too large."""
    most = config.clients.max_upload_megabytes
    try:
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        if size > most:
            raise Refused(f"client '{folder.name}': {size:.1f} MB, above the 'max-upload-megabytes' of {most:g}")
        return Upload.load(folder, config.builders)
    except Refused:
        raise
    except (ValueError, OSError) as error:
        raise Refused(f"client '{folder.name}': unreadable upload: {error}") from None


def quarantine(workspace: Workspace, client: str, reason: str) -> None:
    target = workspace.quarantine / client
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(workspace.uploads / client, target)
    write_json(target / "reason.json", {"reason": reason})
    workspace.log("client", name=client, state="quarantined", reason=reason)
