"""How far images are from what a client's classifier saw. One value per image; nothing here knows of diffusion."""

from functools import reduce

import torch
import torch.nn.functional as F

from common.models.feature_statistics import FeatureStatistics, Moments


def classification_loss(
    logits: torch.Tensor,  # (B, classes)
    targets: torch.Tensor,  # (B,) int64
) -> torch.Tensor:
    """Cross-entropy of each image, (B,) (paper, Eq. 9)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def statistics_loss(
    recorded: dict[str, Moments],  # per-image moments, (B, channels) each
    target: FeatureStatistics,  # (channels,) each, or (B, channels)
) -> torch.Tensor:
    """Sum over layers of ||mean - target mean||_2 + ||variance - target variance||_2 (paper, Eq. 7).

    One value per image, (B,): the paper's batch of one.
    """
    distances: list[torch.Tensor] = []
    for name, seen in recorded.items():
        distances.append(torch.linalg.vector_norm(seen.mean - target[name].mean, dim=1))
        distances.append(torch.linalg.vector_norm(seen.variance - target[name].variance, dim=1))
    return reduce(torch.add, distances)
