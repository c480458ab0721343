"""What a model gives away about who was in its training set: membership by loss, measured on the client itself.

The attack of Yeom et al. (2018): guess that an image was trained on when its loss is small. It needs no other models,
so its figures are a lower bound of what a determined attacker learns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from common.datasets.labeled_images import LabeledImages
from common.datasets.readers import folders
from common.labels import maps
from common.models.predictor import Classifier
from common.vision.metrics import predict

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


def of_folder(model: Classifier, folder: Path) -> Membership:
    """Of a finished model, about the images of a client's folder whose classes it knows.

    Raises
    ------
    ValueError: the folder cannot be read, or has fewer than 20 such images on either side.
    """
    own = folders.load(folder, model.preprocessing.image_size)
    known = maps.find(own.class_names, model.class_names, {})
    held_out = joined(own.splits["validation"], own.splits["test"])
    members, others = (_of_known_classes(part, known) for part in (own.splits["train"], held_out))
    if not (found := membership(model.network, model.preprocessing, members, others)):
        raise ValueError(
            f"{folder} has {len(members)} training and {len(others)} held-out images of the model's classes; an audit "
            f"needs {FEWEST} of each"
        )
    return found


def _of_known_classes(part: LabeledImages, known: torch.Tensor) -> LabeledImages:
    """known: of each class, where the model has it, or -1."""
    labels = known[part.labels]
    return LabeledImages(part.images[labels >= 0], labels[labels >= 0])


def joined(*parts: LabeledImages) -> LabeledImages:
    return LabeledImages(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


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
