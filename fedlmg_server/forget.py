"""`fedlmg forget`: delete a client's upload and images, and make the model again without them."""

import shutil

from common import manifest
from common.config import ConfigError
from common.manifest import ManifestError
from common.names import safe_name
from common.upload import is_whole
from fedlmg_server import pipeline
from fedlmg_server.events import ClientEvent
from fedlmg_server.monitor.text import make_printable
from fedlmg_server.report.measuring import Measuring
from fedlmg_server.report.write import write_report
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace


def forget_client(run: Run, client: str) -> None:
    """Delete everything that came from the client or was made from it, then distil and report again.

    The new model is byte for byte the model of a run without this client, but after a warm start: there it still knows
    classes that only this client named, because the others' classifiers were made for them. If a call is interrupted,
    call again.

    The old model is deleted at once, even if too few clients remain to make a new one. The cache of a virtual client is
    in the workspace, so it is deleted too. A real client keeps the files on its own machine.

    Raises
    ------
    ConfigError: the workspace has no such client, or fewer than `min-clients` clients remain.
    """
    workspace = run.workspace
    known = _names_by_folder(workspace)
    client = known.get(client, client)
    if safe_name(client) not in known and client not in workspace.forgotten:
        there = ", ".join(sorted(map(make_printable, known.values()))) or "none"
        raise ConfigError(f"no client is called '{client}' in {workspace.root}: choose one of {there}")
    workspace.forgotten.add([client])
    folders = [workspace.model, workspace.report, workspace.upload(client), workspace.quarantine / safe_name(client)]
    if safe_name(client) == client:
        # The name of a virtual client is also the name of its folder. The name of a real client might be a path.
        folders.append(workspace.root / "virtual-clients" / client)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    workspace.remove_images(client)
    workspace.log(ClientEvent(name=client, state="forgotten"))
    if not any(map(is_whole, workspace.uploads.glob("*"))):
        raise ConfigError(
            f"removed client '{client}', but no upload remains to make a model from: collect more with `fedlmg run`"
        )
    pipeline.aggregate(run)
    write_report(run, {}, {}, {}, Measuring(run).measure({}))


def _names_by_folder(workspace: Workspace) -> dict[str, str]:
    """Folder -> name of each client. The name is in its manifest; if that cannot be read, it is the folder's name."""
    found = {}
    for folder in (*workspace.uploads.glob("*"), *workspace.quarantine.glob("*")):
        name = ""
        try:
            name = manifest.read(folder).client
        except ManifestError as error:
            name = error.client
        except OSError:
            pass
        found[folder.name] = name if safe_name(name) == folder.name else folder.name
    return found
