"""From one label space into another, as tensors; names as `labels.py` spells them."""

import torch

from common.labels import class_key


def to_global_indices(local: list[str], names: list[str]) -> torch.Tensor:
    """Index in `names` of each local class: int64 (len(local),)."""
    return torch.tensor([names.index(name) for name in local])


def find_indices(local: list[str], names: list[str], aliases: dict[str, str]) -> torch.Tensor:
    """Index in `names` of each local class, however it is spelt, -1 where it has none: int64 (len(local),)."""
    keys = [class_key(name, aliases) for name in names]
    return torch.tensor(
        [keys.index(class_key(name, aliases)) if class_key(name, aliases) in keys else -1 for name in local]
    )


def mark_known(local: list[str], names: list[str]) -> torch.Tensor:
    """Which of `names` a client knows: bool (len(names),)."""
    return torch.tensor([name in local for name in names])


def spread_probabilities(probabilities: torch.Tensor, local: list[str], names: list[str]) -> torch.Tensor:
    """Local probabilities (N, len(local)) as global ones (N, len(names)); classes the client does not know get 0."""
    spread = probabilities.new_zeros(len(probabilities), len(names))
    spread[:, to_global_indices(local, names).to(probabilities.device)] = probabilities
    return spread
