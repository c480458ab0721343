"""Whether a classifier calls the classes what everybody calls them: two tests on images whose classes are known (ours).

The shift test is for a classifier that started from a general model. Fine-tuning on an honest client's images hardly
changes which of two classes the general model prefers. Training on mislabelled images does, even where general images
were replayed. The reading test is for any other classifier, and looks at what it says alone.

log_before, log_after  (N, classes)  log-probabilities that the general model and the classifier give N images
labels                 (N,)          int64, the images' true classes
gains                  (classes, classes)  nats by which images of a row's class lean towards the column's class; 0 on
                                           the diagonal
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment

State = Literal["consistent", "mislabelled", "unknown"]

LEAST_SHIFT = 1.2
"""Nats that each class of an assignment must gain, on average. Mislabelled clients of digits reach at least 1.4,
honest ones at most 0.85, but for two of fifteen with few images of a class. Honest ones of blood cells reach 1.9, so
that names must change as well (see `LEAST_TOLD`)."""
LEAST_SHIFT_OF_CLASS = 0.5
"""Nats that every single class of it must gain, in a circle of classes that take each other's names. A client with few
images of a class forgets that class, which leans to another, but not the other to it."""
LEAST_TOLD, LEAST_TOLD_OF_CLASS = 0.06, 0.1
"""How much larger a share of a class's images must be called by another class's name than the general model does: in
the mean of a circle's classes, and in two of them at least. Where no answer changes, a classifier is only less sure. A
small net of a client with few images or classes forgets some classes for others, and not these for the first. Of 219
honest nets 11 were accused at 0.03 of a class, none is at 0.1; of 114 mislabelled ones 87 were found, and 74 are."""
LEAST_TOLD_IMAGES = 2
"""In these two classes it must be so many more images, too: where a class has few, one image is a large share."""
LEAST_GAIN = 0.5
"""Nats that each class of an assignment must gain, on average, in the reading test."""
LEAST_ERRORS = 2.0
"""Standard errors by which more images must be read as taught than as shown, in the reading test. With eight images a
class an honest classifier that read 14 of 32 was accused for three images."""
LEAST_KNOWN = 0.7
"""Share of the images that a general model must read right, so that it can be compared with. One that read 60 % (an
MLP) forgot so much on an honest client's digits that it looked mislabelled."""
LEAST_KEPT = 0.3
"""Of that share: what the classifier must still read, by the images' classes or by those it was taught."""
LEAST_READ = 0.5
"""Share of the images that a classifier must read, by the images' classes or by another assignment, to be judged."""
CLEAR_SHARE = 0.5
"""Share of the largest gain from which a class of an assignment is named."""
SMALLEST_LOG = -6.0
"""Log-probabilities below are cut off in the shift test: how very sure a classifier is says nothing of its labels."""
SMALLEST_PROBABILITY = 0.02
"""The same in the reading test, where there are few images."""


@dataclass(frozen=True)
class Verdict:
    state: State
    mistaken: dict[str, str] = field(default_factory=dict)
    """Class as the client labels it -> the class that its images look like; empty unless `mislabelled`."""
    read: float | None = None
    """Share in [0, 1] of the images that the classifier reads right; None if it was shown none."""

    def sentence(self) -> str:
        """What is wrong with the labels, in a clause; empty unless `mislabelled`."""
        if self.state != "mislabelled":
            return ""
        pairs = [f"its '{label}' looks like '{like}'" for label, like in self.mistaken.items()]
        more = f" and {len(pairs) - MOST_PAIRS} more classes are mistaken" if len(pairs) > MOST_PAIRS else ""
        return ", ".join(pairs[:MOST_PAIRS]) + more


UNKNOWN = Verdict("unknown")
MOST_PAIRS = 3
"""Classes that a sentence names."""


def judge_shift(
    log_before: torch.Tensor, log_after: torch.Tensor, labels: torch.Tensor, class_names: list[str]
) -> Verdict:
    """Compare a classifier with the general model that it started from; all classes are ones that the client holds."""
    right_before, right = (_share_right(log_p, labels) for log_p in (log_before, log_after))
    if not _is_complete(labels, class_names) or right_before < LEAST_KNOWN:
        return Verdict("unknown", read=right)
    moved = log_after.clamp(min=SMALLEST_LOG) - log_before.clamp(min=SMALLEST_LOG)
    gains = _gains(moved, labels)
    circles = [circle for circle in _find_circles(_assign(gains, LEAST_SHIFT)) if _is_strong(circle, gains)]
    read_as_taught = _share_right(log_after, _follow(circles, len(class_names))[labels])
    has_forgotten = max(right, read_as_taught) < LEAST_KEPT * right_before
    told = [circle for circle in circles if _is_told(circle, log_before, log_after, labels)]
    if has_forgotten or (circles and not told):
        return Verdict("unknown", read=right)
    return _verdict(_follow(told, len(class_names)).tolist(), gains, class_names, right)


def judge_reading(log_after: torch.Tensor, labels: torch.Tensor, class_names: list[str]) -> Verdict:
    """Judge a classifier by what it says of images in the client's look."""
    right = _share_right(log_after, labels)
    if not _is_complete(labels, class_names):
        return Verdict("unknown", read=right)
    log_p = log_after.exp().clamp(min=SMALLEST_PROBABILITY).log()
    # What it says of every image says nothing of this one.
    gains = _gains(log_p - _mean_by_class(log_p, labels).mean(0), labels)
    assignment = _assign(gains, LEAST_GAIN)
    taught = torch.tensor(assignment)[labels]
    moved = taught != labels
    shares = [_share_right(log_after[rows], taught[rows]) for rows in (slice(None), moved) if taught[rows].numel()]
    if min(shares) < LEAST_READ or (moved.any() and not _is_clear(log_after[moved], labels[moved], taught[moved])):
        return Verdict("unknown", read=right)
    return _verdict(assignment, gains, class_names, right)


def confirm(accused: Verdict, log_p: torch.Tensor, labels: torch.Tensor, class_names: list[str]) -> Verdict:
    """The verdict, or `unknown` if a classifier that is accused for images in its look does not call other images of
    the classes, in any look, as it was taught more often than as they are shown.

    A net misreads in its own look, too: honest small ones of cells read drawn cells by their colour.
    """
    taught = labels.clone()
    for label, like in accused.mistaken.items():
        taught[labels == class_names.index(like)] = class_names.index(label)
    read, moved = log_p.argmax(1), taught != labels
    as_taught, as_shown = int((read == taught)[moved].sum()), int((read == labels)[moved].sum())
    return accused if as_taught > as_shown else Verdict("unknown", read=accused.read)


def join(verdicts: list[Verdict]) -> Verdict:
    """The verdict on a client from those on its classifiers: `mislabelled` if one is, `consistent` if all are."""
    mislabelled = [verdict for verdict in verdicts if verdict.state == "mislabelled"]
    unknown = [verdict for verdict in verdicts if verdict.state == "unknown"]
    return next(iter([*mislabelled, *unknown, *verdicts]), UNKNOWN)


def _verdict(assignment: list[int], gains: torch.Tensor, class_names: list[str], read: float) -> Verdict:
    told = {(true, label): gains[true, label].item() for true, label in enumerate(assignment) if true != label}
    # Two classes that are swapped draw others along, which gain less.
    clear = [pair for pair, gain in told.items() if gain >= CLEAR_SHARE * max(told.values())]
    # Images of a row's class are called what the column says: the client's folder of that name holds such images.
    mistaken = {class_names[label]: class_names[true] for true, label in clear}
    return Verdict("mislabelled" if mistaken else "consistent", dict(sorted(mistaken.items())), read)


def _assign(gains: torch.Tensor, least: float) -> list[int]:
    """The assignment of classes that gains most, where each class that leaves its own must gain `least` to pay."""
    worth = gains - least
    worth.fill_diagonal_(0.0)
    return [int(column) for column in linear_sum_assignment(worth.numpy(), maximize=True)[1]]


def _find_circles(assignment: list[int]) -> list[list[int]]:
    """The circles of classes that take each other's names: each class gets the next one's, the last the first's."""
    circles: list[list[int]] = []
    for first, label in enumerate(assignment):
        if label == first or any(first in circle for circle in circles):
            continue
        circle = [first]
        while (following := assignment[circle[-1]]) != first:
            circle.append(following)
        circles.append(circle)
    return circles


def _follow(circles: list[list[int]], count: int) -> torch.Tensor:
    """int64 (count,): the class whose name each class takes; its own outside the circles."""
    names = torch.arange(count)
    for true, label in (pair for circle in circles for pair in _pairs(circle)):
        names[true] = label
    return names


def _pairs(circle: list[int]) -> list[tuple[int, int]]:
    return list(zip(circle, [*circle[1:], circle[0]], strict=True))


def _is_strong(circle: list[int], gains: torch.Tensor) -> bool:
    return all(gains[true, label] >= LEAST_SHIFT_OF_CLASS for true, label in _pairs(circle))


def _is_told(circle: list[int], log_before: torch.Tensor, log_after: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether images of the circle's classes are called by the others' names more often than before."""
    more = []
    for true, label in _pairs(circle):
        rows = labels == true
        before, after = ((log_p[rows].argmax(1) == label).sum().item() for log_p in (log_before, log_after))
        more.append(((after - before) / int(rows.sum()), after - before))
    share, images = sorted(more)[-2]
    mean = sum(each for each, _ in more) / len(more)
    return mean >= LEAST_TOLD and share >= LEAST_TOLD_OF_CLASS and images >= LEAST_TOLD_IMAGES


def _is_clear(log_p: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor) -> bool:
    """Whether images of each class are read more often as taught than as shown, and together by more than chance."""
    read = log_p.argmax(1)
    as_taught, as_shown = read == taught, read == labels
    by_class = [int(as_taught[labels == label].sum() - as_shown[labels == label].sum()) for label in labels.unique()]
    return min(by_class) > 0 and sum(by_class) > LEAST_ERRORS * int(as_taught.sum() + as_shown.sum()) ** 0.5


def _gains(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    mean = _mean_by_class(values, labels)
    return mean - mean.diagonal()[:, None]


def _mean_by_class(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(classes, classes): mean of the rows of each class."""
    return torch.stack([values[labels == label].mean(0) for label in range(values.shape[1])])


def _share_right(log_p: torch.Tensor, labels: torch.Tensor) -> float:
    return (log_p.argmax(1) == labels).double().mean().item()


def _is_complete(labels: torch.Tensor, class_names: list[str]) -> bool:
    """Whether there are two classes or more, with images of each."""
    return len(class_names) > 1 and bool((torch.bincount(labels, minlength=len(class_names)) > 0).all())
