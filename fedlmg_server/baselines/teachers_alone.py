"""`local`, each client's own model used by everyone; and `ensemble`, the mean of their probabilities."""

import torch

from common.metrics import accuracy


def local(per_client: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, float]:
    """Accuracy of each client's model on one test set; per_client: (N, classes) each."""
    return {client: accuracy(probabilities, labels) for client, probabilities in per_client.items()}


def ensemble(per_client: dict[str, torch.Tensor], labels: torch.Tensor) -> float:
    """Accuracy of the mean softmax of all clients on one test set."""
    return accuracy(torch.stack(list(per_client.values())).mean(0), labels)
