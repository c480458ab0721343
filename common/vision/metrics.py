"""How good a classifier is on labelled images."""

import math
from collections.abc import Callable, Iterator

import torch

from common.storage.images import Images, ImageView

EVALUATION_BATCH_SIZE = 256
"""Images of up to 64 pixels that are read at once; of larger ones as many as have as many pixels."""


@torch.no_grad()
def predict(model: torch.nn.Module, preprocess: Callable[[torch.Tensor], torch.Tensor], images: Images) -> torch.Tensor:
    """Class probabilities, float32 (N, classes) on the CPU, of images uint8 (N, 3, h, w)."""
    return torch.cat(list(predict_parts(model, preprocess, images)))


@torch.no_grad()
def predict_parts(
    model: torch.nn.Module, preprocess: Callable[[torch.Tensor], torch.Tensor], images: Images
) -> Iterator[torch.Tensor]:
    """As `predict`, in parts of up to `EVALUATION_BATCH_SIZE` images."""
    model.eval()
    device = next(model.parameters()).device
    for part in ImageView.of(images).split(_batch_size(images.shape[-1] * images.shape[-2])):
        yield model(preprocess(part.to(device).float() / 255)).float().softmax(1).cpu()


def _batch_size(num_pixels: int) -> int:
    return max(1, EVALUATION_BATCH_SIZE * 64**2 // max(64**2, num_pixels))


def accuracy(probabilities: torch.Tensor, labels: torch.Tensor, top: int = 1) -> float:
    """The share, in [0, 1], of rows of (N, classes) whose label is among the `top` most probable classes."""
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).double().mean().item()


def balanced_accuracy(predicted: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None) -> float:
    """The mean over the classes of the share of a class's images that is read right, in [0, 1]; nan without images.

    Parameters
    ----------
    predicted, labels: int64 (N,); a label that no prediction equals, such as -1, counts as wrong.
    groups: int64 (N,), the class of each image, where `labels` have one value for several classes; None: `labels`.
    """
    groups = labels if groups is None else groups
    if not len(labels):
        return math.nan
    right = (predicted == labels).double()
    return torch.stack([right[groups == group].mean() for group in groups.unique()]).mean().item()


def above_chance(accuracy: float, num_classes: int, num_images: int | None = None) -> float:
    """Accuracy in [0, 1] as the share of the way from chance (0) to perfect (1).

    Of `num_images` images, less two standard errors of guessing, so that a few lucky ones prove nothing. With a single
    class nothing is guessed: all images right is perfect, however few they are.
    """
    chance = 1 / max(num_classes, 2)
    luck = 2 * math.sqrt(chance * (1 - chance) / num_images) if num_images and num_classes > 1 else 0.0
    return max(0.0, (accuracy - luck - chance) / (1 - chance))


def count_confusions(probabilities: torch.Tensor, labels: torch.Tensor, num_labels: int | None = None) -> torch.Tensor:
    """The confusion matrix, int64 (labels, classes): true classes in rows, predicted classes in columns.

    num_labels: the number of rows; by default the number of classes.
    """
    classes = probabilities.shape[1]
    rows = num_labels or classes
    return torch.bincount(labels * classes + probabilities.argmax(1), minlength=rows * classes).reshape(rows, classes)
