"""Accuracies as plain numbers: their interval and their mean. It imports no PyTorch, so tables start at once."""

import math
from collections.abc import Iterable

Z_95 = 1.96
"""Standard deviations of a normal distribution on either side of its mean that hold 95 % of it."""


def wilson_interval(accuracy: float, num_images: int) -> tuple[float, float]:
    """Where an accuracy in [0, 1] on `num_images` test images, at least 1, lies for all images, with a confidence of
    95 % (Wilson, 1927)."""
    z = Z_95**2 / num_images
    middle = (accuracy + z / 2) / (1 + z)
    half = math.sqrt(z * accuracy * (1 - accuracy) + z * z / 4) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None if there is none; summed in the given order."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
