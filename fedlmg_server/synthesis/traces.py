"""How the losses fell while images were drawn, one line of JSON a batch."""

import json
from contextlib import suppress
from pathlib import Path

import torch

from common.upload import Upload
from common.workspace import Workspace
from fedlmg_server.synthesis.guidance import Trace


def append(file: Path, num_images: int, trace: Trace) -> None:
    """On a new line, whatever a crash has left of the last one."""
    means = {kind: [round(value, 5) for value in torch.stack(steps).tolist()] for kind, steps in trace.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as lines:
        lines.write("\n" + json.dumps({"images": num_images, **means}) + "\n")


def read(folder: Path) -> list[dict]:
    """A client's batches, oldest first in each process: `images`, their number, and the losses at each step by kind."""
    batches = []
    for file in sorted(folder.glob("losses-*.jsonl")):
        for line in file.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                batches.append(json.loads(line))
    return batches


def newest(workspace: Workspace, uploads: list[Upload], method: str) -> dict[str, dict[str, float]]:
    """Client -> kind of loss -> its value at the last step of the newest batch, for the client drawn for last."""
    files = [file for upload in uploads for file in workspace.synthetic(upload.client, method).glob("losses-*.jsonl")]
    if not files:
        return {}
    folder = max(files, key=lambda file: file.stat().st_mtime_ns).parent
    client = next(upload.client for upload in uploads if workspace.synthetic(upload.client, method) == folder)
    batches = read(folder) or [{}]
    return {client: {kind: steps[-1] for kind, steps in batches[-1].items() if kind != "images"}}
