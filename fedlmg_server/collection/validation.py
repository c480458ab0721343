"""Validate the uploads in the workspace; rejected uploads move to quarantine with a reason, and the run continues."""

import json
import os
import shutil
from pathlib import Path

from common.config import Config
from common.manifest import ManifestError
from common.storage.atomic import write_json
from common.upload import Upload, is_whole
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from fedlmg_server.events import ClientEvent
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace


def validate_uploads(run: Run) -> dict[str, str]:
    """Move every invalid upload to quarantine, so that `Run.uploads` has the valid ones; returns `read_rejections`."""
    for folder in sorted(filter(is_whole, run.workspace.uploads.glob("*"))):
        try:
            check_upload(load_upload(folder, run.config), run.config)
        except UploadError as error:
            quarantine(run.workspace, folder.name, str(error))
    return read_rejections(run.workspace)


def read_rejections(workspace: Workspace) -> dict[str, str]:
    """Folder name -> why the client's upload was rejected, for all clients without a newer, valid upload."""
    return {
        path.parent.name: json.loads(path.read_text())["reason"]
        for path in sorted(workspace.quarantine.glob("*/reason.json"))
        if not is_whole(workspace.uploads / path.parent.name)
    }


def load_upload(folder: Path, config: Config) -> Upload:
    """Read an upload.

    Raises
    ------
    UploadError: the upload cannot be read, or is larger than `max-upload-megabytes`; the message names the client.
    """
    most = config.clients.max_upload_megabytes
    try:
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        if size > most:
            raise UploadError(
                f"client '{folder.name}': the upload has {size:.1f} MB, but 'max-upload-megabytes' allows {most:g}: "
                "raise that key, or let the client choose a smaller architecture"
            )
        return Upload.load(folder, config.builders)
    except UploadError:
        raise
    except ManifestError as error:
        raise UploadError(f"client '{error.client or folder.name}': {error}") from None
    except (ValueError, OSError) as error:
        raise UploadError(f"client '{folder.name}': the upload cannot be read ({error})") from None


def quarantine(workspace: Workspace, client: str, reason: str) -> None:
    """Move the upload in folder `client` out of the workspace's uploads, and store the reason beside it."""
    target = workspace.quarantine / client
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(workspace.uploads / client, target)
    write_json(target / "reason.json", {"reason": reason})
    workspace.log(ClientEvent(name=client, state="quarantined", reason=reason))
