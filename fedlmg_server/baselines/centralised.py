"""`centralised`: the same student trained as long on all clients' real training images, pooled. Simulation only."""

import torch

from common.datasets.labeled_images import LabeledImages
from fedlmg_server.distillation.trainer import TrainingSet


def pool_images(splits: list[LabeledImages]) -> TrainingSet:
    """Every client's training images; labels index the union of their classes."""
    return TrainingSet(torch.cat([split.images for split in splits]), torch.cat([split.labels for split in splits]))
