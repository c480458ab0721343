"""Squares of 2 x 2 latents as tokens, for denoisers that take a sequence."""

from functools import lru_cache

import torch
import torch.nn.functional as F


def pack(x: torch.Tensor) -> torch.Tensor:
    """Tokens (B, H / 2 * W / 2, 4 C) of latents (B, C, H, W)."""
    return to_tokens(F.pixel_unshuffle(x, 2))


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo `pack`: latents (B, C, height, width)."""
    return F.pixel_shuffle(from_tokens(tokens, height // 2, width // 2), 2)


def to_tokens(x: torch.Tensor) -> torch.Tensor:
    """Tokens (B, H * W, C) of latents (B, C, H, W)."""
    return x.flatten(2).transpose(1, 2)


def from_tokens(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo `to_tokens`: latents (B, C, height, width)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


@lru_cache(maxsize=4)
def positions(height: int, width: int, axes: int, device: torch.device) -> torch.Tensor:
    """Row and column of each token of a grid, float (height * width, axes), in the second and the third of the axes."""
    grid = torch.zeros(height, width, axes, device=device)
    grid[..., 1] = torch.arange(height, device=device)[:, None]
    grid[..., 2] = torch.arange(width, device=device)[None]
    return grid.flatten(0, 1)
