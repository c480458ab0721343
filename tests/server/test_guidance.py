"""What an image is held against: the moments of its class, of its cluster, of all, alone or with its batch."""

import copy

import pytest
import torch

from common.models.feature_statistics import Moments
from common.upload import Upload
from fedlmg_server.synthesis.guidance import ClassifierGuidance, unit
from tests.conftest import make_upload


def test_an_image_is_held_against_the_moments_of_its_own_class(guidance):
    images, classes = torch.rand(2, 3, 32, 32), torch.tensor([1, 0])
    pooled = guidance.target_statistics
    apart = copy.deepcopy(guidance)
    apart.target_statistics = {
        name: Moments(torch.stack([moments.mean, moments.mean + 1]), torch.stack([moments.variance] * 2))
        for name, moments in pooled.items()
    }

    together, alone = apart.statistics_only(classes)(images), guidance.statistics_only(classes)(images)

    assert together[0] > alone[0] + 1
    torch.testing.assert_close(together[1], alone[1])


def test_an_image_is_held_against_the_moments_of_its_own_cluster(guidance):
    images, classes, clusters = torch.rand(2, 3, 32, 32), torch.tensor([1, 1]), torch.tensor([1, 2])
    apart = copy.deepcopy(guidance)
    apart.target_statistics = {
        name: Moments(*(torch.stack([part, part + 1])[:, None].repeat(1, 2, 1) for part in (m.mean, m.variance)))
        for name, m in guidance.target_statistics.items()
    }

    together, alone = apart.statistics_only(classes, clusters)(images), guidance.statistics_only(classes)(images)

    assert together[0] > alone[0] + 1
    torch.testing.assert_close(together[1], alone[1])


def guidance_by_classes(upload: Upload, **settings: bool) -> ClassifierGuidance:
    """Of an upload whose statistics are those of two classes, its own less and more one."""
    apart = {
        name: Moments(torch.stack([moments.mean - 1, moments.mean + 1]), torch.stack([moments.variance] * 2))
        for name, moments in upload.statistics.items()
    }
    return ClassifierGuidance(upload.classifier(), upload.preprocess, apart, 1.0, 0.1, **settings)


def test_class_moments_are_followed_unless_the_run_says_otherwise(upload: Upload):
    guidance = guidance_by_classes(upload)

    assert {moments.mean.dim() for moments in guidance.target_statistics.values()} == {2}


@pytest.mark.parametrize(("architecture", "wider"), [("small_resnet", 0), ("small_convnext", 1)])
def test_moments_of_all_are_batch_norms_own_or_pooled(architecture: str, wider: int):
    upload = make_upload("site-a", ["cat", "dog"], architecture)

    guidance = guidance_by_classes(upload, by_class=False)

    assert guidance.target_statistics.keys() == upload.statistics.keys() != set()
    for name, moments in guidance.target_statistics.items():
        torch.testing.assert_close(moments.mean, upload.statistics[name].mean)
        torch.testing.assert_close(moments.variance, upload.statistics[name].variance + wider)


def test_unit_gradient_of_nothing_is_nothing():
    assert torch.equal(unit(torch.zeros(1, 1, 2, 2)), torch.zeros(1, 1, 2, 2))
