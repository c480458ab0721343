"""The images in the workspace as one labelled set."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from common.config import Config
from common.labels import union
from common.upload import Upload
from common.workspace import Workspace
from fedlmg_server import plan
from fedlmg_server.synthesis.draw import read_scores


@dataclass(frozen=True)
class SyntheticSet:
    images: torch.Tensor
    """uint8 (N, 3, h, w)"""
    labels: torch.Tensor
    """int64 (N,), indices into `class_names`"""
    clients: list[str]
    """The client that each image was drawn for, N names."""
    class_names: list[str]


def load(config: Config, workspace: Workspace, uploads: list[Upload], method: str = "fedlmg") -> SyntheticSet:
    """Every planned image, in the plan's order; guided ones only if their classifier reads them as asked.

    The filter keeps images whose guiding classifier gives the class asked for at least `min_confidence`.
    """
    class_names = union([upload.class_names for upload in uploads])
    images, labels, clients = [], [], []
    for upload in uploads:
        folder = workspace.synthetic(upload.client, method)
        scores = read_scores(folder)
        per_class = config.synthesis.images_per_class
        for drawing in plan.drawings(config.seed, upload.client, upload.class_names, per_class):
            path = drawing.path(folder)
            score = scores[str(path.relative_to(folder))]
            if method == "fedlmg" and score.confidence < config.synthesis.min_confidence:
                continue
            images.append(np.array(Image.open(path).convert("RGB")))
            labels.append(class_names.index(drawing.class_name))
            clients.append(upload.client)
    if not images:
        raise ValueError(
            "no synthetic image passed the filter: lower the config key 'min-confidence' or guide more strongly"
        )
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return SyntheticSet(stacked, torch.tensor(labels), clients, class_names)
