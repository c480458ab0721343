"""How far images are from what a client's classifier saw. One value per image; nothing here knows of diffusion."""

import torch
import torch.nn.functional as F

from common.models.feature_statistics import FeatureStatistics, Moments, pool


def classification_loss(
    logits: torch.Tensor,  # (B, classes)
    targets: torch.Tensor,  # (B,) int64
) -> torch.Tensor:
    """Cross-entropy of each image, (B,) (paper, Eq. 9)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def statistics_loss(
    recorded: dict[str, Moments],  # per-image moments, (B, channels) each
    target: FeatureStatistics,  # (channels,) each, or (B, channels)
    per_batch: bool,
) -> torch.Tensor:
    """Sum over layers of ||mean - target mean||_2 + ||variance - target variance||_2 (paper, Eq. 7).

    Per image: (B,), the paper's batch of one. Per batch (ours): (1,), the moments of all images together, which leaves
    each image free to differ from the population.
    """
    total = 0.0
    for name, moments in recorded.items():
        seen = pool(moments) if per_batch else moments
        total = total + torch.linalg.vector_norm(seen.mean - target[name].mean, dim=1)
        total = total + torch.linalg.vector_norm(seen.variance - target[name].variance, dim=1)
    return total
