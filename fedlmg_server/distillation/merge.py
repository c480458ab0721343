"""Merge classifiers that started from one general model into one (task arithmetic, arXiv 2212.04089; the rule is ours).

merged = start + scale x weighted mean of the clients' differences to the start. A BatchNorm's running variance changes
by factors instead, so that it stays positive: start x (the mean factor) ** scale. The clients' average has scale 1.
Differences of unlike clients hardly overlap, so more than their mean can be added, until the sum forgets what all of
them knew: as much as costs one point of accuracy on held-out general images. Less is added only where the average costs
ten. Where no real general images are there to tell, no more than the mean is added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

from common.vision.metrics import above_chance

State = dict[str, torch.Tensor]
"""A state dict on the CPU, floating point in float32."""
Measure = Callable[[State], float]
"""A classifier's weights -> its accuracy in [0, 1] on held-out general images."""

LARGER_SCALES, SMALLER_SCALES = (1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 2.8), (0.75, 0.5)
"""Multiples of the mean difference that are tried beside the average, in turn."""
MOST_LOSS_OF_AVERAGE, MOST_LOSS_OF_MORE = 0.1, 0.01
"""How far the accuracy on general images may fall by the average or less of it, and by more than it."""
LARGEST_NORM = 3.0
"""A difference may be this many times as long as the clients' median difference."""
LEAST_KEPT = 0.5
"""Share of the start's accuracy above chance, on general images, that each client's own classifier must keep."""
SMALLEST_VARIANCE = 1e-8
NEAR_CHANCE = 0.15
"""Accuracy above chance below which general images cannot tell a good scale from a bad one: the average is taken."""


@dataclass(frozen=True)
class Member:
    """One client's classifier, trained from the common start."""

    client: str
    state: State
    weight: float = 1.0
    """Of its difference in the mean, above 0."""


@dataclass(frozen=True)
class Merged:
    state: State
    scale: float
    """Multiple of the mean difference that was added; 0 where even the smallest costs too much."""
    accuracies: dict[float, float]
    """Scale -> accuracy in [0, 1] on held-out general images, as far as scales were tried; 0 is the start's."""
    left_out: dict[str, str]
    """Client -> why its classifier is not in the merge."""


def merge(
    start: State, members: list[Member], measure: Measure, num_classes: int, may_extrapolate: bool = True
) -> Merged:
    """The merge of the members that can be trusted; the start where there are none.

    may_extrapolate: whether the images of `measure` are real, so that they can tell a good scale from a bad one. Images
    that a diffusion model drew are easy, and say little of real ones.
    """
    accuracy_of_start = measure(start)
    left_out = _find_unfit(start, members, measure, accuracy_of_start, num_classes)
    trusted = [member for member in members if member.client not in left_out]
    if not trusted:
        return Merged(dict(start), 0.0, {0.0: accuracy_of_start}, left_out)
    if above_chance(accuracy_of_start, num_classes) < NEAR_CHANCE:
        return Merged(add_differences(start, trusted, 1.0), 1.0, {0.0: accuracy_of_start}, left_out)
    chosen, best, accuracies = 0.0, dict(start), {0.0: accuracy_of_start}
    for scale in (1.0, *SMALLER_SCALES):
        state = add_differences(start, trusted, scale)
        accuracies[scale] = measure(state)
        if accuracies[scale] >= accuracy_of_start - MOST_LOSS_OF_AVERAGE:
            chosen, best = scale, state
            break
    for scale in LARGER_SCALES if may_extrapolate and chosen == 1.0 else ():
        state = add_differences(start, trusted, scale)
        accuracies[scale] = measure(state)
        if accuracies[scale] < accuracy_of_start - MOST_LOSS_OF_MORE:
            break
        chosen, best = scale, state
    return Merged(best, chosen, accuracies, left_out)


def add_differences(start: State, members: list[Member], scale: float) -> State:
    """start + scale x weighted mean of the members' differences; integer tensors are the start's."""
    total = sum(member.weight for member in members)
    shares = {member.client: scale * member.weight / total for member in members}
    merged = {}
    for name, value in start.items():
        if not value.is_floating_point():
            merged[name] = value.clone()
        elif name.endswith("running_var"):
            base = value.clamp(min=SMALLEST_VARIANCE).log()
            changes = [shares[m.client] * (m.state[name].clamp(min=SMALLEST_VARIANCE).log() - base) for m in members]
            merged[name] = (base + torch.stack(changes).sum(0)).exp()
        else:
            changes = [shares[member.client] * (member.state[name] - value) for member in members]
            merged[name] = value + torch.stack(changes).sum(0)
    return merged


def _find_unfit(
    start: State, members: list[Member], measure: Measure, accuracy_of_start: float, num_classes: int
) -> dict[str, str]:
    """Client -> why its classifier must not be merged: too far from the start, or general knowledge lost."""
    norms = {member.client: _length_of_difference(start, member.state) for member in members}
    usual = median(norms.values()) if norms else 0.0
    found = {}
    for member in members:
        norm = norms[member.client]
        if len(members) > 2 and norm > LARGEST_NORM * usual:
            found[member.client] = f"its difference to the start is {norm / max(usual, 1e-12):.1f} times the median"
            continue
        kept = above_chance(measure(member.state), num_classes)
        wanted = LEAST_KEPT * above_chance(accuracy_of_start, num_classes)
        if kept < wanted:
            found[member.client] = (
                f"on general images it is {kept:.2f} above chance (0 is chance, 1 perfect), less than {wanted:.2f}"
            )
    return found


def _length_of_difference(start: State, state: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm of the difference of all weights and biases, without BatchNorm's running moments."""
    squares = [
        (state[name] - value).double().square().sum()
        for name, value in start.items()
        if value.is_floating_point() and "running_" not in name
    ]
    return float(torch.stack(squares).sum().sqrt())
