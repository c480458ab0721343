"""The layer of a classifier that gives its logits, cut down to some of its classes."""

import torch
from torch import nn

from common.models.pretrained import head_name


def keep_outputs(
    model: nn.Module, arrays: dict[str, torch.Tensor], classes: torch.Tensor, num_classes: int
) -> dict[str, torch.Tensor]:
    """The state dict of the same net with the outputs of some of its classes alone.

    arrays: the net's state dict. classes: int64 (classes kept,), which of its `num_classes` outputs are kept, in order.

    Raises
    ------
    ValueError: the outputs are not the rows of the net's last layer.
    """
    head = head_name(model)
    rows = {name: arrays[name] for name in (f"{head}.weight", f"{head}.bias") if name in arrays}
    if not rows or any(len(tensor) != num_classes for tensor in rows.values()):
        raise ValueError(f"the last layer of its classifier, '{head}', must have a row for each class, but has not")
    return arrays | {name: tensor[classes] for name, tensor in rows.items()}
