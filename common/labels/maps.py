"""Maps from one label space to another, as tensors; class names are spelt as `common.labels` spells them."""

import torch

from common.labels import class_key


def to_global_indices(local: list[str], names: list[str]) -> torch.Tensor:
    """The index in `names` of each class in `local`: int64 (len(local),).

    Raises
    ------
    ValueError: a local class is not in `names`.
    """
    return torch.tensor([names.index(name) for name in local])


def find_indices(local: list[str], names: list[str], aliases: dict[str, str]) -> torch.Tensor:
    """The index in `names` of each class in `local`, by `class_key`; -1 where there is none: int64 (len(local),)."""
    keys = [class_key(name, aliases) for name in names]
    return torch.tensor(
        [keys.index(class_key(name, aliases)) if class_key(name, aliases) in keys else -1 for name in local]
    )


def mark_known(local: list[str], names: list[str]) -> torch.Tensor:
    """For each of `names`, whether the client knows that class (it is in `local`): bool (len(names),)."""
    return torch.tensor([name in local for name in names])


def spread_probabilities(probabilities: torch.Tensor, local: list[str], names: list[str]) -> torch.Tensor:
    """Probabilities over local classes (N, len(local)) as probabilities over `names` (N, len(names)).

    A class that the client does not know gets probability 0.
    """
    spread = probabilities.new_zeros(len(probabilities), len(names))
    spread[:, to_global_indices(local, names).to(probabilities.device)] = probabilities
    return spread
