"""The uploads as they are: every client's model on every test set, and `ensemble`, the mean of their probabilities.

`local-own` reads each client's own test set with its own model, what it has without any federation; `local-all` is the
mean of all clients' models on it.
"""

import torch

from common.vision.metrics import accuracy
from fedlmg_server.distillation.teachers import multi_teacher


def measure_each(per_client: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, float]:
    """Accuracy of each client's model on one test set; per_client: (N, classes) each."""
    return {client: accuracy(probabilities, labels) for client, probabilities in per_client.items()}


def measure_ensemble(
    per_client: dict[str, torch.Tensor],
    known: dict[str, torch.Tensor],
    labels: torch.Tensor,
    weights: dict[str, float] | None = None,
) -> float:
    """Accuracy of the mean softmax, each class over the clients that know it, on one test set; known: (classes,)."""
    return accuracy(multi_teacher(per_client, known, weights), labels)
