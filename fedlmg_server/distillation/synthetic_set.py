"""The images in the workspace as one labelled set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.upload import Upload
from fedlmg_server.run import Run
from fedlmg_server.synthesis import filters, scores, store
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.synthesis.plan import PlannedImage


@dataclass(frozen=True)
class SyntheticSet:
    images: torch.Tensor
    """uint8 (N, 3, h, w)"""
    labels: torch.Tensor
    """int64 (N,), indices into `class_names`"""
    clients: list[str]
    """The client whose classifier guided each image, N names."""
    class_names: list[str]
    rejected: Rejected = field(default_factory=dict)
    """Images that were generated and are not here."""


def read_synthetic_set(run: Run, method: str = "fedlmg") -> SyntheticSet:
    """Every planned image, in the plan's order, unless a filter rejects it (see `synthesis.filters`).

    Raises
    ------
    ValueError: no image passes.
    """
    images, labels, clients = [], [], []
    rejected: Rejected = {}
    for upload in run.uploads:
        passing = list(_passing(run, upload, method, rejected))
        if not passing:
            continue
        images.append(_read([image.path(run.image_folder(upload, method)) for image in passing]))
        labels += [run.class_names.index(image.class_name) for image in passing]
        clients += [upload.client] * len(passing)
    if not labels:
        raise ValueError(
            "no synthetic image passed the filter: lower the config key 'min-confidence' or guide more strongly"
        )
    return SyntheticSet(torch.cat(images), torch.tensor(labels), clients, run.class_names, rejected)


def _passing(run: Run, upload: Upload, method: str, rejected: Rejected) -> Iterator[PlannedImage]:
    known = scores.read_scores(run.image_folder(upload, method))
    for image in store.planned_images(run, upload):
        if why := filters.find_reason(known[image.file], run.config.synthesis.min_confidence, method == "fedlmg"):
            filters.count_rejected(rejected, upload.client, image.class_name, why)
        else:
            yield image


def _read(paths: list[Path]) -> torch.Tensor:
    """uint8 (N, 3, h, w)"""
    arrays = np.stack([np.array(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()
