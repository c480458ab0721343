"""Uploads as they arrive: each is checked for its size and its sender, and written to the workspace."""

import shutil
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from flwr.app import Message

from common import manifest
from common.manifest import Manifest, ManifestError
from common.upload import Upload, is_whole, megabytes
from fedlmg_server.collection.broadcast import ReplyError
from fedlmg_server.collection.identity import Identity
from fedlmg_server.events import ClientEvent, Loss
from fedlmg_server.workspace import Workspace


def find_held(workspace: Workspace) -> dict[str, str]:
    """Client name -> sha256 of the weights, for every upload in the workspace."""
    folders = workspace.uploads.iterdir() if workspace.uploads.is_dir() else ()
    found = [_read_held(folder, (folder / "manifest.json").stat().st_mtime_ns) for folder in filter(is_whole, folders)]
    return dict(filter(None, found))


@lru_cache(maxsize=10_000)
def _read_held(folder: Path, changed: int) -> tuple[str, str] | None:
    """Client name and sha256 of an upload; None if this version cannot read it, so that it is asked for again.

    A manifest is read once, and again when it has changed: while clients answer, all are looked at after each answer.
    """
    with suppress(ManifestError):
        found = manifest.read(folder)
        return found.client, found.checksum
    return None


def receive_upload(
    reply: Message, node: int, workspace: Workspace, identity: Identity, others: Collection[str], most: float
) -> str:
    """Write a node's upload to the workspace, and return the client's name.

    others: names of clients that have answered. most: largest upload in MB (10**6 bytes).

    Raises
    ------
    ReplyError: the reply cannot be used.
    ValueError: its records are not those of an upload.
    """
    identity.raise_client_error(reply, node)
    if (size := megabytes(reply.content)) > most:
        raise ReplyError(f"the upload has {size:.1f} MB, but 'max-upload-megabytes' allows {most:g}")
    received = _read_manifest(reply, node, identity)
    name, digest, held = received.client, received.checksum, find_held(workspace)
    identity.check(name, node, others)
    if "arrays" in reply.content:
        upload = Upload.from_records(reply.content)
        # Weights are sent where they are not held. What was made from an earlier upload is out of date, even if it had
        # the same weights, for these may stand for other classes now.
        (workspace.upload(name) / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(workspace.upload(name), ignore_errors=True)
        workspace.remove_work(name)
        if held.get(name) == digest:
            workspace.remove_model()
        upload.save(workspace.upload(name))
    elif held.get(name) != digest:
        raise ReplyError("the client sent a manifest without weights, but the server does not hold its weights", name)
    elif _meaning(received) != _meaning(manifest.read(workspace.upload(name))):
        # A class was renamed: the weights are the same, and what was made from them is not.
        workspace.remove_work(name)
        workspace.remove_model()
        manifest.write(workspace.upload(name), received)
    workspace.log(ClientEvent(name=name, state="answered"))
    for epoch, loss in received.training.losses():
        workspace.log(Loss(series=f"training, {name}", step=epoch, value=loss))
    return name


def _meaning(said: Manifest) -> tuple[object, ...]:
    """What the weights stand for."""
    return said.architecture, said.class_names, said.class_counts, said.preprocessing


def _read_manifest(reply: Message, node: int, identity: Identity) -> Manifest:
    try:
        return manifest.parse(reply.content.config_records["manifest"]["json"])
    except ManifestError as error:
        raise ReplyError(str(error), identity.name_of(node, error.client)) from None
