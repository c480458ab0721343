"""How the losses fell while images were generated, one line of JSON a batch."""

from collections.abc import Iterable
from pathlib import Path

import torch

from common.storage import json_lines
from fedlmg_server.run import Run
from fedlmg_server.synthesis.guidance import Trace


def append_losses(file: Path, traces: Iterable[tuple[int, Trace]]) -> None:
    """Of each batch its number of images and its losses; unguided ones, which have none, are left out."""
    entries = []
    for num_images, trace in traces:
        means = {kind: [round(value, 5) for value in torch.stack(steps).tolist()] for kind, steps in trace.items()}
        entries += [{"images": num_images, **means}] if means else []
    if entries:
        json_lines.append(file, entries)


def read_losses(folder: Path) -> list[dict]:
    """A client's batches, oldest first in each process: `images`, their number, and the losses at each step by kind."""
    return [batch for file in sorted(folder.glob("losses-*.jsonl")) for batch in json_lines.read(file)]


def newest_losses(run: Run, method: str) -> dict[str, dict[str, float]]:
    """Client -> kind of loss -> its value at the last step of the newest batch, for the client of that batch."""
    folders = {run.image_folder(upload, method): upload.client for upload in run.uploads}
    files = [file for folder in folders for file in folder.glob("losses-*.jsonl")]
    if not files:
        return {}
    folder = max(files, key=lambda file: file.stat().st_mtime_ns).parent
    batches = read_losses(folder) or [{}]
    return {folders[folder]: {kind: steps[-1] for kind, steps in batches[-1].items() if kind != "images"}}
