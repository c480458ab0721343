"""What a model gives away about who was in its training set: membership by loss, measured on the client itself.

The attack of Yeom et al. (2018): guess that an image was trained on when its loss is small. It needs no other models,
so its figures are a lower bound of what a determined attacker learns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from common.datasets.digits import LabeledImages
from common.metrics import predict

FEWEST = 20
"""Images on either side, below which nothing is said."""
FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Membership:
    """auc: chance that a training image has the smaller loss, 0.5 a coin, 1 certainty; tpr_at_1_percent_fpr: share of
    training images found when 1 % of the others are taken for them."""

    auc: float
    tpr_at_1_percent_fpr: float
    members: int
    others: int

    def sentence(self) -> str:
        """For the person whose images these are."""
        words = "hardly at all" if self.auc < 0.6 else "somewhat" if self.auc < 0.75 else "well"
        return (
            f"who holds this model can tell your training images from others {words}: membership AUC {self.auc:.2f} "
            f"(0.5 is a coin), {self.tpr_at_1_percent_fpr:.0%} of them found at 1 % false alarms"
        )


def membership(
    model: torch.nn.Module, preprocess: Callable, members: LabeledImages, others: LabeledImages
) -> Membership | None:
    """By the loss of each image; None with fewer than 20 images on either side."""
    if min(len(members), len(others)) < FEWEST:
        return None
    scores = [-losses(model, preprocess, images) for images in (members, others)]
    return of_scores(*scores)


def losses(model: torch.nn.Module, preprocess: Callable, data: LabeledImages) -> torch.Tensor:
    """Cross-entropy of each image, float32 (N,)."""
    return F.nll_loss(predict(model, preprocess, data.images).clamp(min=1e-12).log(), data.labels, reduction="none")


def of_scores(members: torch.Tensor, others: torch.Tensor) -> Membership:
    """From a score of each image, (N,) and (M,), higher where it looks more like a member."""
    ordered = others.sort().values
    below, up_to = (torch.searchsorted(ordered, members, right=right) for right in (False, True))
    auc = (below + up_to).double().mean() / 2 / len(others)
    allowed = int(FALSE_POSITIVES * len(others))
    found = (members > ordered[len(others) - 1 - allowed]).double().mean()
    return Membership(round(auc.item(), 4), round(found.item(), 4), len(members), len(others))
