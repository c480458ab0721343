"""Means over what was measured."""

import pytest
import torch

from common.vision.metrics import above_chance, balanced_accuracy
from common.vision.shares import mean_of_known, wilson_interval


def test_what_was_not_measured_counts_for_no_mean():
    assert mean_of_known([0.5, None, 1.0]) == 0.75


def test_nothing_measured_has_no_mean():
    assert mean_of_known([None]) is None


@pytest.mark.parametrize("num_images", [None, 1, 3, 100])
def test_a_perfect_client_of_one_class_is_not_near_chance(num_images: int | None):
    assert above_chance(1.0, num_classes=1, num_images=num_images) == 1.0


def test_a_client_of_one_class_that_is_never_right_is_at_chance():
    assert above_chance(0.0, num_classes=1, num_images=5) == 0.0


def test_every_class_counts_alike_in_the_balanced_accuracy():
    labels = torch.tensor([0] * 8 + [1] * 2)

    assert balanced_accuracy(torch.zeros_like(labels), labels) == 0.5


def test_classes_that_a_model_lacks_are_still_told_apart():
    predicted, right, groups = torch.tensor([0, 0, 0, 0]), torch.tensor([0, -1, -1, -1]), torch.tensor([0, 1, 1, 2])

    assert balanced_accuracy(predicted, right, groups) == pytest.approx(1 / 3)


def test_interval_is_that_of_wilson():
    assert wilson_interval(0.81, 263) == pytest.approx((0.7582, 0.8529), abs=2e-3)


@pytest.mark.parametrize(("accuracy", "end"), [(0.0, 0), (1.0, 1)])
def test_interval_of_few_images_is_wide_and_ends_at_what_is_possible(accuracy: float, end: int):
    interval = wilson_interval(accuracy, 10)

    assert interval[end] == pytest.approx(accuracy)
    assert interval[1] - interval[0] == pytest.approx(0.278, abs=0.01)
