"""How good a classifier is on labelled images."""

from collections.abc import Callable

import torch

EVALUATION_BATCH_SIZE = 256


@torch.no_grad()
def predict(model: torch.nn.Module, preprocess: Callable, images: torch.Tensor) -> torch.Tensor:
    """Class probabilities float32 (N, classes) of images uint8 (N, 3, h, w)."""
    model.eval()
    device = next(model.parameters()).device
    parts = (
        model(preprocess(part.to(device).float() / 255)).float().softmax(1).cpu()
        for part in images.split(EVALUATION_BATCH_SIZE)
    )
    return torch.cat(list(parts))


def accuracy(probabilities: torch.Tensor, labels: torch.Tensor, top: int = 1) -> float:
    """Share of rows of (N, classes) whose label is among the `top` most probable classes; in [0, 1]."""
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).double().mean().item()


def confusion(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts int64 (classes, classes): row true class, column predicted."""
    classes = probabilities.shape[1]
    return torch.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2).reshape(classes, classes)
