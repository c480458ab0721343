"""The learning-rate schedule of every training: a linear warm-up, then a cosine decay to zero."""

import math


def warm_up_then_cosine(step: int, num_steps: int, warm_up_steps: int) -> float:
    """The factor in [0, 1] on the peak learning rate at `step` (from 0) of `num_steps` (cosine: SGDR, 1608.03983)."""
    return min(1.0, (step + 1) / warm_up_steps) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
