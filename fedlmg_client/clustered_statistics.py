"""Statistics by cluster: each class's images in clusters of equal size, each cluster with moments of its own (ours).

If a class is multi-modal, its mean statistics match no real image, and images guided by them mix the modes. Images that
each follow one cluster are as varied as the client's own.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from common.models import feature_statistics
from common.models.feature_statistics import FEWEST_OF_A_CLASS, FeatureStatistics, Moments

MOST_CHANNELS = 2048
"""Channels by which images are compared. Deeper layers of a large net are left out, to save the client's memory."""

Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
"""Gives all preprocessed images (B, 3, S, S) with their labels (B,), in the same order at each of its two calls."""


@torch.no_grad()
def gather(model: nn.Module, batches: Batches, num_classes: int, num_clusters: int) -> FeatureStatistics:
    """The moments of each cluster of each class, (clusters, classes, channels); `num_clusters` is a power of two.

    A cluster has at least `FEWEST_OF_A_CLASS` images. A class with too few images has fewer clusters, which are then
    repeated up to `num_clusters`.
    """
    parts = [(_features(model, images), labels) for images, labels in batches()]
    labels = torch.cat([labels for _, labels in parts])
    clusters = assign(torch.cat([features for features, _ in parts]), labels, num_classes, num_clusters)
    groups = (clusters * num_classes + labels).split([len(labels) for _, labels in parts])
    grouped = ((images, group) for (images, _), group in zip(batches(), groups, strict=True))
    gathered = feature_statistics.gather_by_class(model, grouped, num_clusters * num_classes)
    of_class = torch.ones(num_classes, dtype=torch.int64).scatter_reduce(0, labels, clusters + 1, "amax")
    rows = torch.arange(num_clusters)[:, None] % of_class * num_classes + torch.arange(num_classes)
    return {name: Moments(moments.mean[rows], moments.variance[rows]) for name, moments in gathered.items()}


def _features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The moments that the statistics loss compares, of each image (B, 3, S, S): float32 (B, features) on the CPU."""
    model.eval()
    with feature_statistics.recording(model, feature_statistics.tapped_layers(model)) as recorded:
        model(images)
    layers: list[torch.Tensor] = []
    channels = 0
    for moments in recorded.values():
        channels += moments.mean.shape[1]
        if layers and channels > MOST_CHANNELS:
            break
        layers += [moments.mean, moments.variance]
    return torch.cat(layers, 1).cpu()


def assign(features: torch.Tensor, labels: torch.Tensor, num_classes: int, num_clusters: int) -> torch.Tensor:
    """The cluster of each image, int64 (N,), from features float32 (N, F) and labels int64 (N,).

    Each class is halved repeatedly, at the median along its first principal component, until it has `num_clusters`
    parts or a half would have fewer than `FEWEST_OF_A_CLASS` images.
    """
    clusters = torch.zeros_like(labels)
    for number in range(num_classes):
        parts = [(labels == number).nonzero()[:, 0]]
        while len(parts) < num_clusters and min(map(len, parts)) >= 2 * FEWEST_OF_A_CLASS:
            parts = [half for part in parts for half in _halves(features, part)]
        for cluster, part in enumerate(parts):
            clusters[part] = cluster
    return clusters


def _halves(features: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    centred = features[rows] - features[rows].mean(0)
    along = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    ordered = rows[along.argsort(stable=True)]
    return ordered[: len(rows) // 2], ordered[len(rows) // 2 :]
