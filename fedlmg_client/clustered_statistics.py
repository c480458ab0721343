"""Looks: a class's images in groups of equal size that look alike to a classifier, each with moments of its own (ours).

Where a client's images of one class come from unlike sources, the moments of all of them are those of no image: who
follows them draws a mixture. Following one look each, images are as varied as the client's.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from common.models import feature_statistics
from common.models.feature_statistics import FEWEST_OF_A_CLASS, FeatureStatistics, Moments

MOST_CHANNELS = 2048
"""By which images are compared; a large net's deeper layers are left out, or its clients' memory would not do."""

Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
"""Preprocessed images (B, 3, S, S) with their labels (B,), from the first on; they are read twice."""


@torch.no_grad()
def gather(model: nn.Module, batches: Batches, num_classes: int, num_looks: int) -> FeatureStatistics:
    """Moments of each look of each class, (looks, classes, channels); `num_looks` a power of two.

    A look has `FEWEST_OF_A_CLASS` images or more: a class with too few has fewer looks, which then repeat.
    """
    parts = [(_features(model, images), labels) for images, labels in batches()]
    labels = torch.cat([labels for _, labels in parts])
    looks = assign(torch.cat([features for features, _ in parts]), labels, num_classes, num_looks)
    groups = (looks * num_classes + labels).split([len(labels) for _, labels in parts])
    grouped = ((images, group) for (images, _), group in zip(batches(), groups, strict=True))
    gathered = feature_statistics.gather_by_class(model, grouped, num_looks * num_classes)
    of_class = torch.stack([looks[labels == number].max() for number in range(num_classes)]) + 1
    rows = torch.arange(num_looks)[:, None] % of_class * num_classes + torch.arange(num_classes)
    return {name: Moments(moments.mean[rows], moments.variance[rows]) for name, moments in gathered.items()}


def _features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the statistics loss compares, of each of (B, 3, S, S) images: float32 (B, features), on the CPU."""
    model.eval()
    with feature_statistics.recording(model, feature_statistics.tapped_layers(model)) as recorded:
        model(images)
    layers, channels = [], 0
    for moments in recorded.values():
        channels += moments.mean.shape[1]
        if layers and channels > MOST_CHANNELS:
            break
        layers += [moments.mean, moments.variance]
    return torch.cat(layers, 1).cpu()


def assign(features: torch.Tensor, labels: torch.Tensor, num_classes: int, num_looks: int) -> torch.Tensor:
    """Look of each image, int64 (N,), from features (N, F) and labels (N,): every class halved again and again at the
    median along its first principal component, as long as `FEWEST_OF_A_CLASS` images are left in a part."""
    looks = torch.zeros_like(labels)
    for number in range(num_classes):
        parts = [(labels == number).nonzero()[:, 0]]
        while len(parts) < num_looks and min(map(len, parts)) >= 2 * FEWEST_OF_A_CLASS:
            parts = [half for part in parts for half in _halves(features, part)]
        for look, part in enumerate(parts):
            looks[part] = look
    return looks


def _halves(features: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    centred = features[rows] - features[rows].mean(0)
    along = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    ordered = rows[along.argsort(stable=True)]
    return ordered[: len(rows) // 2], ordered[len(rows) // 2 :]
