"""Who teaches the student: nobody, all clients together, or for each image the client that guided it."""

import torch

from common import labels as label_spaces
from common.metrics import predict
from common.upload import Upload


def probabilities(upload: Upload, images: torch.Tensor, class_names: list[str], device: torch.device) -> torch.Tensor:
    """One teacher's probabilities over the global classes, float (N, classes), of images uint8 (N, 3, h, w)."""
    local = predict(upload.classifier(device), upload.preprocess, images)
    return label_spaces.spread(local, upload.class_names, class_names)


def multi_teacher(per_client: dict[str, torch.Tensor], known: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean of the clients' probabilities (paper, Eq. 12), each class over the clients that know it, renormalised.

    per_client: (N, classes) each; known: bool (classes,) each.
    """
    total = sum(per_client.values())
    teachers = sum(mask.float() for mask in known.values()).clamp(min=1)
    mean = total / teachers
    return mean / mean.sum(1, keepdim=True)


def specific_teacher(per_client: dict[str, torch.Tensor], clients: list[str]) -> torch.Tensor:
    """For each image the probabilities of the client it was drawn for (paper, Eq. 13); clients: N names."""
    return torch.stack([per_client[client][row] for row, client in enumerate(clients)])
