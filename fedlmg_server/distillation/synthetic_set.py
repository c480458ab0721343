"""The images in the workspace as one labelled set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.config import Config
from common.labels import union
from common.upload import Upload
from fedlmg_server.synthesis import filters, plan, scores
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.synthesis.plan import Drawing
from fedlmg_server.workspace import Workspace


@dataclass(frozen=True)
class SyntheticSet:
    images: torch.Tensor
    """uint8 (N, 3, h, w)"""
    labels: torch.Tensor
    """int64 (N,), indices into `class_names`"""
    clients: list[str]
    """The client that each image was drawn for, N names."""
    class_names: list[str]
    rejected: Rejected = field(default_factory=dict)
    """What was drawn and is not here."""


def load(config: Config, workspace: Workspace, uploads: list[Upload], method: str = "fedlmg") -> SyntheticSet:
    """Every planned image, in the plan's order, unless a filter rejects it (see `synthesis.filters`); in place of a
    rejected one the first that was drawn again and passes.

    Raises
    ------
    ValueError: no image passes.
    """
    class_names = union([upload.class_names for upload in uploads])
    images, labels, clients = [], [], []
    rejected: Rejected = {}
    for upload in uploads:
        drawings = list(_passing(config, workspace, upload, method, rejected))
        if not drawings:
            continue
        pixels = _read([drawing.path(workspace.synthetic(upload.client, method)) for drawing in drawings])
        if method == "fedlmg" and config.synthesis.min_distance > 0:
            kept = _distinct(pixels, drawings, config.synthesis.min_distance, upload.client, rejected)
            drawings, pixels = [drawings[row] for row in kept], pixels[kept]
        images.append(pixels)
        labels += [class_names.index(drawing.class_name) for drawing in drawings]
        clients += [upload.client] * len(drawings)
    if not labels:
        raise ValueError(
            "no synthetic image passed the filter: lower the config key 'min-confidence' or guide more strongly"
        )
    return SyntheticSet(torch.cat(images), torch.tensor(labels), clients, class_names, rejected)


def _passing(
    config: Config, workspace: Workspace, upload: Upload, method: str, rejected: Rejected
) -> Iterator[Drawing]:
    known = scores.read(workspace.synthetic(upload.client, method))
    per_class = config.synthesis.images_per_class
    for drawing in plan.drawings(config.seed, upload.client, upload.class_names, per_class):
        for _ in range(config.synthesis.max_redraws + 1):
            why = filters.reason(known[drawing.file], config.synthesis, method == "fedlmg")
            if not why:
                yield drawing
                break
            filters.count(rejected, upload.client, drawing.class_name, why)
            drawing = plan.redraw(drawing)


def _read(paths: list[Path]) -> torch.Tensor:
    """uint8 (N, 3, h, w)"""
    arrays = np.stack([np.array(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


def _distinct(
    pixels: torch.Tensor, drawings: list[Drawing], min_distance: float, client: str, rejected: Rejected
) -> list[int]:
    """Rows of the images that are no near-duplicates."""
    dropped = set()
    for name in dict.fromkeys(drawing.class_name for drawing in drawings):
        rows = [row for row, drawing in enumerate(drawings) if drawing.class_name == name]
        found = filters.duplicates(pixels[rows], min_distance)
        for row in (row for row, duplicate in zip(rows, found, strict=True) if duplicate):
            dropped.add(row)
            filters.count(rejected, client, name, "duplicate")
    return [row for row in range(len(drawings)) if row not in dropped]
