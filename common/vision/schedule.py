"""The learning-rate schedule of every training: a linear warm-up, then a cosine decay to zero."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_up_then_cosine(step: int, num_steps: int, warm_up_steps: int) -> float:
    """The factor in [0, 1] on the peak learning rate at `step` (from 0) of `num_steps` (cosine: SGDR, 1608.03983)."""
    return min(1.0, (step + 1) / warm_up_steps) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def make_scheduler(optimizer: Optimizer, num_steps: int, warm_up_steps: int, steps_done: int = 0) -> LambdaLR:
    """A scheduler for an optimiser whose learning rates are now at their peak; call `step()` after each optimiser step.

    steps_done: the steps of the schedule that an earlier optimiser took.
    """
    # LambdaLR computes the first rate at once, even for a training of no steps.
    num_steps = max(1, num_steps)
    return LambdaLR(optimizer, lambda step: warm_up_then_cosine(steps_done + step, num_steps, warm_up_steps))
