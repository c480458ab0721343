"""Means over what was measured."""

import pytest

from common.vision.metrics import above_chance, mean_of_known


def test_what_was_not_measured_counts_for_no_mean():
    assert mean_of_known([0.5, None, 1.0]) == 0.75


def test_nothing_measured_has_no_mean():
    assert mean_of_known([None]) is None


@pytest.mark.parametrize("num_images", [None, 1, 3, 100])
def test_a_perfect_client_of_one_class_is_not_near_chance(num_images: int | None):
    assert above_chance(1.0, num_classes=1, num_images=num_images) == 1.0


def test_a_client_of_one_class_that_is_never_right_is_at_chance():
    assert above_chance(0.0, num_classes=1, num_images=5) == 0.0
