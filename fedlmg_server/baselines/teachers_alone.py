"""`ensemble`: the mean of the probabilities of the uploads as they are.

`local-own` reads each client's own test set with its own model, what it has without any federation; `local-all` is the
mean of all clients' models on it.
"""

import torch

from common.vision.metrics import accuracy
from fedlmg_server.distillation.teachers import multi_teacher


def measure_ensemble(
    per_client: dict[str, torch.Tensor],
    known: dict[str, torch.Tensor],
    labels: torch.Tensor,
    weights: dict[str, float] | None = None,
) -> float:
    """Accuracy of the mean softmax, each class over the clients that know it, on one test set; known: (classes,)."""
    return accuracy(multi_teacher(per_client, known, weights), labels)
