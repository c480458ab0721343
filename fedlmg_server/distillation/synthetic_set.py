"""The images in the workspace as one labelled set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.config import Config
from common.labels import union_of_names
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
    """Every planned image, in the plan's order, unless a filter rejects it (see `synthesis.filters`).

    Raises
    ------
    ValueError: no image passes.
    """
    class_names = union_of_names([upload.class_names for upload in uploads])
    images, labels, clients = [], [], []
    rejected: Rejected = {}
    for upload in uploads:
        drawings = list(_passing(config, workspace, upload, method, rejected))
        if not drawings:
            continue
        pixels = _read([drawing.path(workspace.synthetic(upload.client, method)) for drawing in drawings])
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
        if why := filters.reason(known[drawing.file], config.synthesis, method == "fedlmg"):
            filters.count(rejected, upload.client, drawing.class_name, why)
        else:
            yield drawing


def _read(paths: list[Path]) -> torch.Tensor:
    """uint8 (N, 3, h, w)"""
    arrays = np.stack([np.array(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()
