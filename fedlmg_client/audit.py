"""Membership-inference audit: how well the loss tells training images from held-out images, measured on the client.

The attack is that of Yeom et al. (2018): an image with a small loss is guessed to be a training image. It trains no
other models, so its figures are a lower bound of what a determined attacker learns.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.datasets.labeled_images import LabeledView
from common.datasets.readers import folders
from common.labels import maps
from common.manifest import Membership
from common.models.predictor import Classifier
from common.storage.caches import image_cache
from common.vision.metrics import predict

FEWEST = 20
"""The audit needs at least this many training images and this many held-out images."""
FALSE_POSITIVES = 0.01


def describe_membership(found: Membership) -> str:
    """One sentence for the owner of the images."""
    risk = "low" if found.auc < 0.6 else "moderate" if found.auc < 0.75 else "high"
    return (
        f"Membership-inference risk of this model: {risk} (AUC {found.auc:.2f}; 0.50 is chance); the attack finds "
        f"{found.tpr_at_1_percent_fpr:.0%} of your training images at 1 % false positives"
    )


def measure_membership(
    model: torch.nn.Module,
    preprocess: Callable[[torch.Tensor], torch.Tensor],
    members: LabeledView,
    others: LabeledView,
) -> Membership | None:
    """Attack the model by the loss of each image; None with fewer than 20 training or 20 held-out images."""
    if min(len(members), len(others)) < FEWEST:
        return None
    scores = [-compute_losses(model, preprocess, images) for images in (members, others)]
    return membership_from_scores(*scores)


def audit_folder(
    model: Classifier,
    folder: Path,
    allow_outside: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    most_gigabytes: float = IMAGE_GIGABYTES,
) -> Membership:
    """Attack a finished model with the images of a client's folder, leaving out classes that the model does not have.

    Raises
    ------
    ValueError: the folder cannot be read, or has fewer than 20 such training or held-out images.
    """
    size, cache = model.preprocessing.image_size, image_cache()
    own = folders.load(
        folder, size, allow_outside, max_megapixels=max_megapixels, cache=cache, most_gigabytes=most_gigabytes
    )
    known = maps.find_indices(own.class_names, model.class_names, {})
    held_out = own.splits["validation"].join(own.splits["test"])
    members, others = (part.with_labels(known[part.labels]) for part in (own.splits["train"], held_out))
    if not (found := measure_membership(model.network, model.preprocessing, members, others)):
        raise ValueError(
            f"an audit needs {FEWEST} training and {FEWEST} held-out images of the model's classes, but {folder} has "
            f"{len(members)} and {len(others)}: add images"
        )
    return found


def compute_losses(
    model: torch.nn.Module, preprocess: Callable[[torch.Tensor], torch.Tensor], data: LabeledView
) -> torch.Tensor:
    """Cross-entropy of each image, float32 (N,)."""
    return F.nll_loss(predict(model, preprocess, data.images).clamp(min=1e-12).log(), data.labels, reduction="none")


def membership_from_scores(members: torch.Tensor, others: torch.Tensor) -> Membership:
    """The attack's result from a score of each training image (N,) and of each held-out image (M,).

    A higher score means that the attack takes the image for a training image.
    """
    ordered = others.sort().values
    below, up_to = (torch.searchsorted(ordered, members, right=right) for right in (False, True))
    auc = (below + up_to).double().mean() / 2 / len(others)
    allowed = int(FALSE_POSITIVES * len(others))
    found = (members > ordered[len(others) - 1 - allowed]).double().mean()
    return Membership(
        auc=round(auc.item(), 4),
        tpr_at_1_percent_fpr=round(found.item(), 4),
        members=len(members),
        others=len(others),
    )
