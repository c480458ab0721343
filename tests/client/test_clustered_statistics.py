"""A class's images in clusters: which images are in each, and which moments come out."""

import pytest
import torch

from common.models import architectures, feature_statistics
from common.models.feature_statistics import Moments
from fedlmg_client import clustered_statistics

FEWEST = feature_statistics.FEWEST_OF_A_CLASS
DARK_AND_BRIGHT = torch.cat([0.1 * torch.rand(FEWEST, 3, 32, 32), 1 - 0.1 * torch.rand(FEWEST, 3, 32, 32)])


def gather(images: torch.Tensor, labels: torch.Tensor, num_classes: int, num_clusters: int) -> tuple[Moments, Moments]:
    """By cluster, and by class alone, of the first layer of a small ResNet."""
    torch.manual_seed(0)
    model = architectures.build("small_resnet", num_classes).eval()
    layer = next(iter(feature_statistics.tapped_layers(model)))

    def batches():
        return zip(images.split(5), labels.split(5), strict=True)

    by_cluster = clustered_statistics.gather(model, batches, num_classes, num_clusters)[layer]
    return by_cluster, feature_statistics.gather_by_class(model, batches(), num_classes)[layer]


def test_images_of_a_class_part_where_they_are_unlike():
    mixed = torch.randperm(2 * FEWEST, generator=torch.Generator().manual_seed(0))
    features = DARK_AND_BRIGHT.flatten(1)[mixed]

    found = clustered_statistics.assign(features, torch.zeros(2 * FEWEST, dtype=torch.int64), 1, 2)

    dark = mixed < FEWEST
    assert found[dark].unique().numel() == found[~dark].unique().numel() == 1
    assert found[dark][0] != found[~dark][0]


@pytest.mark.parametrize(("num_images", "parts"), [(1, 1), (15, 1), (16, 2), (31, 2), (32, 4), (100, 4)])
def test_no_cluster_has_fewer_images_than_a_class_must(num_images: int, parts: int):
    found = clustered_statistics.assign(torch.rand(num_images, 6), torch.zeros(num_images, dtype=torch.int64), 1, 4)

    counts = torch.bincount(found)
    assert len(counts) == parts
    assert counts.max() - counts.min() <= 1


def test_moments_of_a_cluster_are_those_of_its_images_alone():
    images, labels = DARK_AND_BRIGHT, torch.zeros(2 * FEWEST, dtype=torch.int64)

    by_cluster, _ = gather(images, labels, 1, 2)
    alone = [gather(part, labels[:FEWEST], 1, 1)[1] for part in (images[:FEWEST], images[FEWEST:])]

    order = by_cluster.mean[:, 0].sum(1).argsort()
    expected = sorted(alone, key=lambda moments: moments.mean.sum().item())
    for row, moments in zip(order, expected, strict=True):
        torch.testing.assert_close(by_cluster.mean[row], moments.mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(by_cluster.variance[row], moments.variance, atol=1e-5, rtol=1e-4)


def test_a_class_of_few_images_has_one_cluster_that_repeats():
    images = torch.cat([DARK_AND_BRIGHT, torch.rand(FEWEST, 3, 32, 32)])
    labels = torch.tensor([0] * 2 * FEWEST + [1] * FEWEST)

    by_cluster, by_class = gather(images, labels, 2, 2)

    torch.testing.assert_close(by_cluster.mean[:, 1], by_class.mean[1].repeat(2, 1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(by_cluster.mean[0, 0], by_cluster.mean[1, 0])


def test_all_clusters_pool_to_the_moments_of_all():
    by_cluster, by_class = gather(DARK_AND_BRIGHT, torch.zeros(2 * FEWEST, dtype=torch.int64), 1, 2)

    torch.testing.assert_close(by_cluster.pooled().mean, by_class.pooled().mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_cluster.pooled().variance, by_class.pooled().variance, atol=1e-5, rtol=1e-4)
