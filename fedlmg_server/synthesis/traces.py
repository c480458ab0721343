"""How the losses fell while images were drawn, one line of JSON a batch."""

from collections.abc import Iterable
from pathlib import Path

import torch

from common.storage import json_lines
from common.upload import Upload
from fedlmg_server.synthesis.guidance import Trace
from fedlmg_server.workspace import Workspace


def append(file: Path, traces: Iterable[tuple[int, Trace]]) -> None:
    """Of each batch its number of images and its losses; unguided ones, which have none, are left out."""
    entries = []
    for num_images, trace in traces:
        means = {kind: [round(value, 5) for value in torch.stack(steps).tolist()] for kind, steps in trace.items()}
        entries += [{"images": num_images, **means}] if means else []
    if entries:
        json_lines.append(file, entries)


def read(folder: Path) -> list[dict]:
    """A client's batches, oldest first in each process: `images`, their number, and the losses at each step by kind."""
    return [batch for file in sorted(folder.glob("losses-*.jsonl")) for batch in json_lines.read(file)]


def newest(workspace: Workspace, uploads: list[Upload], method: str) -> dict[str, dict[str, float]]:
    """Client -> kind of loss -> its value at the last step of the newest batch, for the client drawn for last."""
    files = [file for upload in uploads for file in workspace.synthetic(upload.client, method).glob("losses-*.jsonl")]
    if not files:
        return {}
    folder = max(files, key=lambda file: file.stat().st_mtime_ns).parent
    client = next(upload.client for upload in uploads if workspace.synthetic(upload.client, method) == folder)
    batches = read(folder) or [{}]
    return {client: {kind: steps[-1] for kind, steps in batches[-1].items() if kind != "images"}}
