"""The contract between the sampler and a diffusion model; the sampler knows nothing of text or autoencoders.

Shapes: B images, C channels, H x W latent (or pixel) size, h x w image size. Tensors live on the backend's `device`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from fedlmg_server.diffusion.prediction import Prediction


class DiffusionBackend(Protocol):
    """What the sampler needs from a diffusion model."""

    device: torch.device
    scheduler: Any
    """A diffusers scheduler, variance-preserving or of flow matching; `set_timesteps` sets its steps."""
    pixels: int | None
    """Of a side of an image; None: unknown."""

    def set_timesteps(self, num_steps: int) -> None:
        """Set the scheduler's steps, as the model's own pipeline would; `index` below counts them from 0."""

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        """x_T (B, C, H, W), one seed for each image; an image's noise depends on its own seed only."""

    def condition(self, class_names: list[str], seeds: Sequence[int] = ()) -> Any:
        """What `predict` needs to generate these classes, one name and one seed for each image; cached."""

    def predict(self, x_t: torch.Tensor, index: int, condition: Any, guidance_scale: float) -> Prediction:
        """Predict x_0 and the noise at a step, differentiably in x_t.

        guidance_scale: the scale of classifier-free guidance, which takes one fused call; at scale 1 there is no such
        guidance.
        """

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, h, w) in [0, 1]; differentiable, with a straight-through clamp."""

    def decode_for_guidance(self, x_0: torch.Tensor) -> torch.Tensor:
        """Like `decode`, possibly by a cheaper decoder; for places that need only a gradient."""

    def save_memory(self) -> str:
        """Take the next way to need less memory, from now on and for the same images; it takes longer.

        Returns which one it is; empty: none is left.
        """

    def check_safety(self, images: torch.Tensor) -> list[bool]:
        """Whether the safety checker accepts each image (B, 3, h, w) in [0, 1]; always true if there is no checker."""


def noise_of_seeds(seeds: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise (len(seeds), *shape) on the CPU; each image's noise comes from its own seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def freeze(*parts: torch.nn.Module) -> None:
    """Put the modules into evaluation mode, without gradients for their parameters."""
    for part in parts:
        part.eval().requires_grad_(False)


def straight_through_clamp(images: torch.Tensor) -> torch.Tensor:
    """Clamp to [0, 1] in the forward pass only, so that saturated pixels keep their gradient (ours)."""
    return images + (images.clamp(0, 1) - images).detach()
