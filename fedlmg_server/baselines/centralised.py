"""`centralised`: the same student trained as long on all clients' real training images, pooled. Simulation only.

`centralised-with-general`: on these and the general images; half of what the student sees is real.
"""

import torch

from common.datasets.labeled_images import LabeledImages
from common.storage.images import ImageView
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.mixture import load_general
from fedlmg_server.trainer import TrainingSet


def pool_images(splits: list[LabeledImages]) -> TrainingSet:
    """Every client's training images; labels index the union of their classes."""
    pooled = _join(splits)
    return TrainingSet(pooled.images, pooled.labels)


def pool_with_general(run: VirtualRun) -> TrainingSet:
    """The same and the run's general images, the fewer ones of the two repeated."""
    pooled = _join(list(run.train.values()))
    real = LabeledImages(run.preprocess.resize(pooled.images), pooled.labels)
    general = load_general(run)
    if not len(general):
        return TrainingSet(real.images, real.labels)
    most = max(len(real), len(general))
    rows, general_rows = torch.arange(most) % len(real), torch.arange(most) % len(general)
    images = ImageView.of(real.images).choose(rows).join(general.images.choose(general_rows))
    return TrainingSet(images, torch.cat([real.labels[rows], general.labels[general_rows]]))


def _join(parts: list[LabeledImages]) -> LabeledImages:
    return LabeledImages(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
