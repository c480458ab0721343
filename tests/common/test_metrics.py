"""Means over what was measured."""

from common.vision.metrics import mean_of_known


def test_what_was_not_measured_counts_for_no_mean():
    assert mean_of_known([0.5, None, 1.0]) == 0.75


def test_nothing_measured_has_no_mean():
    assert mean_of_known([None]) is None
