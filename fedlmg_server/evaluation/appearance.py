"""How sharp images are, and how far their looks spread: what a soft decoder or a timid diffusion model loses (ours)."""

import torch


def sharpness(images: torch.Tensor) -> float:
    """Mean difference of neighbouring values of images uint8 (N, 3, h, w), in [0, 1]."""
    pixels = images.float() / 255
    return ((pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()) / 2).item()


def spread_of_looks(images: torch.Tensor) -> float:
    """Standard deviation of the images' mean colours, of images uint8 (N, 3, h, w), averaged over the channels."""
    return (images.float() / 255).mean((2, 3)).std(0).mean().item()
