"""The optimiser of every classifier: SGD for nets with BatchNorm, AdamW for others."""

import torch

from common.models.architectures import has_batch_norm

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
ADAMW_WEIGHT_DECAY = 0.05
LOCAL_ADAMW_FACTOR = 1 / 50
"""Of SGD's learning rate, in a client's training from scratch."""


def make_optimizer(model: torch.nn.Module, sgd_rate: float, adamw_rate: float) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum, or AdamW for a net without BatchNorm, each at its own learning rate."""
    if has_batch_norm(model):
        return torch.optim.SGD(
            model.parameters(), sgd_rate, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
        )
    return torch.optim.AdamW(model.parameters(), adamw_rate, weight_decay=ADAMW_WEIGHT_DECAY)


def make_local_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """That of a client's training from scratch; learning_rate: the config key `local-learning-rate`."""
    return make_optimizer(model, learning_rate, learning_rate * LOCAL_ADAMW_FACTOR)
