"""Which uploads are fit to guide and to teach; the others go to quarantine with a reason, and the run goes on."""

import json
import os
import shutil
from pathlib import Path

from common.config import Config
from common.labels import in_one_spelling, parse_aliases
from common.names import safe_name
from common.storage.atomic import write_json
from common.upload import Upload, is_whole
from fedlmg_server.collection.upload_checks import Refused, check
from fedlmg_server.workspace import Workspace


def admit(workspace: Workspace, config: Config) -> tuple[list[Upload], dict[str, str]]:
    """Every fit upload in the workspace, its classes in the spelling that all share, and the reasons of those refused
    now or before, by folder name."""
    admitted, refused = [], {}
    for folder in sorted(filter(is_whole, workspace.uploads.glob("*"))):
        try:
            upload = load(folder, config)
            check(upload, config)
            admitted.append(upload)
        except Refused as refusal:
            quarantine(workspace, folder.name, str(refusal))
    for path in sorted(workspace.quarantine.glob("*/reason.json")):
        if not is_whole(workspace.uploads / path.parent.name):
            refused[path.parent.name] = json.loads(path.read_text())["reason"]
    spaces = {safe_name(upload.client): upload.class_names for upload in admitted}
    spelt = in_one_spelling(spaces, parse_aliases(config.federation.class_aliases))
    return [upload.spelling(spelt[safe_name(upload.client)]) for upload in admitted], refused


def load(folder: Path, config: Config) -> Upload:
    """Raises Refused, naming the client, unless the folder holds an upload that can be read and is not too large."""
    most = config.federation.max_upload_megabytes
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
