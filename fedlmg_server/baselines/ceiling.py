"""`ceiling`: the same student trained as long on all clients' real training images, pooled. Simulation only."""

import torch

from common.datasets import digits
from fedlmg_server.distillation.trainer import TrainingSet


def pooled(domains: list[str]) -> TrainingSet:
    """Every client's training images of the embedded federation."""
    splits = [digits.load(domain)["train"] for domain in domains]
    return TrainingSet(torch.cat([split.images for split in splits]), torch.cat([split.labels for split in splits]))
