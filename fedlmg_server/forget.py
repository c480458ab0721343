"""`fedlmg forget`: take a client out of a run, and make the model again without it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from common import manifest
from common.config import ConfigError
from common.manifest import ManifestError
from common.names import safe_name
from common.upload import is_whole
from fedlmg_server import pipeline
from fedlmg_server.erasure.files import erase, find_words
from fedlmg_server.erasure.words import Words
from fedlmg_server.events import ClientEvent, Note
from fedlmg_server.monitor.text import make_printable
from fedlmg_server.quarantine import name_client
from fedlmg_server.report.measuring import Measuring
from fedlmg_server.report.write import write_report
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace

NOT_OURS = (
    "Flower's database and logs, which know the client's node and key",
    "the server's registry, if the client may join no other run either: `fedlmg server remove-client`",
    "experiment trackers that keep their data elsewhere",
    "models that were returned to clients before, and what clients made of them",
    "the client's own machine, and backups of the workspace",
)
"""What may still tell of a removed client, and no command of this program changes."""
CLASSES_STAY = "names of classes that this client alone had: the other clients' classifiers were made to know them"
"""Likewise after a warm start."""


def erase_client(run: Run, client: str) -> list[str]:
    """Delete everything that came from the client, was made from it or tells of it, the model included.

    A salted hash of its name stays, by which the run knows it again. If a call is interrupted, call again. The cache of
    a virtual client is in the workspace, so it is deleted too. A real client keeps the files on its own machine.

    Returns the files of the workspace that still hold its name or a checksum of its weights, as paths from there.

    Raises
    ------
    ConfigError: the workspace has no such client.
    """
    workspace = run.workspace
    known = _names_by_folder(workspace)
    client = known.get(client, client)
    if safe_name(client) not in known and client not in workspace.forgotten and client not in _names_told(workspace):
        there = ", ".join(sorted(map(make_printable, known.values()))) or "none"
        raise ConfigError(f"no client is called '{client}' in {workspace.root}: choose one of {there}")
    words = Words(client, _checksums(workspace, client))
    workspace.forgotten.add([client])
    workspace.remove_model()
    workspace.class_notes.forget(client)
    erase(workspace, words)
    workspace.log(Note(text="a client was removed from the run"))
    return find_words(workspace.root, words)


def tell_what_is_left(run: Run, files: list[str]) -> str:
    """What may still tell of a removed client, for the operator; `files` is what `erase_client` returned."""
    lines = ["No file of the workspace holds the client's name any more."]
    if files:
        lines = ["These files of the workspace still hold the client's name, or a word like it:", *_list(files)]
    kept = [*NOT_OURS, *[CLASSES_STAY] * run.config.general.warm_start]
    return "\n".join([*lines, "What this command does not change, and may tell of the client:", *_list(kept)])


def _list(items: Iterable[str]) -> list[str]:
    return [f"  - {make_printable(item)}" for item in items]


def make_again(run: Run) -> None:
    """Distil and report again.

    The new model is byte for byte the model of a run without the removed client, but after a warm start: there it still
    knows classes that only this client named, because the others' classifiers were made for them.

    Raises
    ------
    ConfigError: fewer than `min-clients` clients remain.
    """
    if not any(map(is_whole, run.workspace.uploads.glob("*"))):
        raise ConfigError(
            "the client is removed, but no upload remains to make a model from: collect more with `fedlmg run`"
        )
    pipeline.aggregate(run)
    write_report(run, {}, {}, {}, Measuring(run).measure({}))


def _folders(workspace: Workspace) -> Iterator[Path]:
    yield from (*workspace.uploads.glob("*"), *workspace.quarantine.glob("*"))


def _names_by_folder(workspace: Workspace) -> dict[str, str]:
    """Folder -> name of each client."""
    return {folder.name: name_client(folder) for folder in _folders(workspace)}


def _names_told(workspace: Workspace) -> set[str]:
    """Names of clients that sent no upload, but were heard of."""
    return {event.name for event in workspace.read_events() if isinstance(event, ClientEvent)} | {
        *workspace.nodes.values()
    }


def _checksums(workspace: Workspace, client: str) -> set[str]:
    found = set()
    for folder in (folder for folder in _folders(workspace) if folder.name == safe_name(client)):
        with suppress(ManifestError, OSError):
            said = manifest.read(folder)
            found |= {said.sha256} | ({said.student_copy.sha256} if said.student_copy else set())
    return found
