"""Class names are the truth, never indices: the union of the clients' label spaces, and the maps into it."""

import torch


def union(label_spaces: list[list[str]]) -> list[str]:
    """All class names, each once, sorted (numbers by value)."""
    names = {name for space in label_spaces for name in space}
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def to_global(local: list[str], names: list[str]) -> torch.Tensor:
    """Index in `names` of each local class: int64 (len(local),)."""
    return torch.tensor([names.index(name) for name in local])


def spread(probabilities: torch.Tensor, local: list[str], names: list[str]) -> torch.Tensor:
    """Local probabilities (N, len(local)) as global ones (N, len(names)); classes the client does not know get 0."""
    spread = probabilities.new_zeros(len(probabilities), len(names))
    spread[:, to_global(local, names).to(probabilities.device)] = probabilities
    return spread
