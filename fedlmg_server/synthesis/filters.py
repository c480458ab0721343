"""Which drawn images are learned from, and why the others are not (ours)."""

import torch

from common.config.synthesis import SynthesisConfig
from fedlmg_server.synthesis.scores import Score

THUMBNAIL = 8
"""Pixels on a side at which images are compared."""

Rejected = dict[str, dict[str, dict[str, int]]]
"""Client -> class -> reason (`confidence`, `unsafe`, `duplicate` or `agreement`) -> number of images."""


def reason(score: Score, config: SynthesisConfig, is_guided: bool = True) -> str:
    """Why an image is not learned from by its own score, empty when it is; confidence is asked of guided ones only."""
    if not score.safe:
        return "unsafe"
    return "confidence" if is_guided and score.confidence < config.min_confidence else ""


def duplicates(images: torch.Tensor, min_distance: float) -> list[bool]:
    """Whether each image is nearer than `min_distance` to an earlier one that is kept.

    images: uint8 (N, 3, h, w), of one client and class. Distance, in [0, 1]: mean absolute difference of grey
    thumbnails.
    """
    grey = images.float().mean(1, keepdim=True) / 255
    thumbnails = torch.nn.functional.interpolate(grey, (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
    distances = torch.cdist(thumbnails, thumbnails, p=1) / THUMBNAIL**2
    found: list[bool] = []
    for row, distance in enumerate(distances.tolist()):
        found.append(any(distance[other] < min_distance for other in range(row) if not found[other]))
    return found


def count(rejected: Rejected, client: str, class_name: str, why: str) -> None:
    reasons = rejected.setdefault(client, {}).setdefault(class_name, {})
    reasons[why] = reasons.get(why, 0) + 1
