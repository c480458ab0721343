"""The contract between the sampler and a diffusion model; the sampler knows nothing of text or autoencoders.

Shapes: B images, C channels, H x W latent (or pixel) size, h x w image size. Tensors live on the backend's `device`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Prediction:
    """The clean estimate x_0 and the noise estimate epsilon, (B, C, H, W) each.

    They satisfy x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise.
    """

    x_0: torch.Tensor
    noise: torch.Tensor


class DiffusionBackend(Protocol):
    """What the sampler needs from a diffusion model."""

    device: torch.device
    scheduler: Any
    """Any diffusers scheduler with epsilon, v- or sample-prediction."""

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        """x_T (B, C, H, W), one seed for each image; an image's noise depends on its own seed only."""

    def condition(self, class_names: list[str]) -> Any:
        """What `predict` needs to generate these classes, one name for each image; cached by name."""

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any, guidance_scale: float) -> Prediction:
        """Predict x_0 and the noise, differentiably in x_t.

        t: the time step, 0-dim on the CPU. guidance_scale: the scale of classifier-free guidance, which takes one fused
        call; at scale 1 there is no such guidance.
        """

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, h, w) in [0, 1]; differentiable, with a straight-through clamp."""

    def decode_for_guidance(self, x_0: torch.Tensor) -> torch.Tensor:
        """Like `decode`, possibly by a cheaper decoder; for places that need only a gradient."""

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


def signal_and_noise(scheduler: Any, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t), 0-dim float32 on the CPU.

    The schedule and the time steps are on the CPU too, so reading them never waits for the device.
    """
    abar = scheduler.alphas_cumprod[t]
    return abar.sqrt(), (1 - abar).sqrt()


def from_model_output(scheduler: Any, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> Prediction:
    """Convert the denoiser's output, of any prediction type, to clean and noise estimates (paper, Eq. 8)."""
    signal, sigma = signal_and_noise(scheduler, t)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return Prediction((x_t - sigma * output) / signal, output)
    if kind == "v_prediction":
        return Prediction(signal * x_t - sigma * output, signal * output + sigma * x_t)
    return Prediction(output, (x_t - signal * output) / sigma)


def to_model_output(scheduler: Any, prediction: Prediction, t: torch.Tensor) -> torch.Tensor:
    """Undo `from_model_output`; the scheduler's step needs the denoiser's output."""
    signal, sigma = signal_and_noise(scheduler, t)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return prediction.noise
    if kind == "v_prediction":
        return signal * prediction.noise - sigma * prediction.x_0
    return prediction.x_0
