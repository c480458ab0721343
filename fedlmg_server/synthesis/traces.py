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


def file_beside(scores: Path) -> Path:
    """The file of losses of the process that writes this file of scores."""
    return scores.with_name(scores.name.replace("scores", "losses", 1))


def newest_losses(run: Run, method: str, files: Iterable[Path]) -> dict[str, dict[str, float]]:
    """Client -> kind of loss -> its value at the last step of the newest batch, for the client of that batch.

    files: those of losses, there or not.
    """
    there = [file for file in files if file.exists()]
    if not there:
        return {}
    newest = max(there, key=lambda file: file.stat().st_mtime_ns)
    client = next(each.client for each in run.uploads if run.image_folder(each, method) == newest.parent)
    batch = (list(json_lines.read(newest)) or [{}])[-1]
    return {client: {kind: steps[-1] for kind, steps in batch.items() if kind != "images"}}
