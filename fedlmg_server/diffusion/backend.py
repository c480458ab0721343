"""The contract between the sampler and a diffusion model; the sampler knows nothing of text or autoencoders.

B images, C channels, H x W latent (or pixel) size, h x w image size; tensors live on `device`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Prediction:
    """x_0: clean estimate; noise: epsilon estimate; both (B, C, H, W), x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise."""

    x_0: torch.Tensor
    noise: torch.Tensor


class DiffusionBackend(Protocol):
    device: torch.device
    scheduler: Any
    """Any diffusers scheduler with epsilon, v- or sample-prediction."""

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        """x_T (B, C, H, W), one seed per image: image i is the same whatever its batch or process."""

    def condition(self, class_names: list[str]) -> Any:
        """What `predict` needs to draw these classes, one name per image; cached per name."""

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any, guidance_scale: float) -> Prediction:
        """Differentiable in x_t; t 0-dim on the CPU; classifier-free guidance in one fused call, none at scale 1."""

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, h, w) in [0, 1]; differentiable, the clamp straight-through."""

    def decode_for_guidance(self, x_0: torch.Tensor) -> torch.Tensor:
        """The same, or a cheaper decoder's view of it, where only a gradient is wanted."""

    def safe(self, images: torch.Tensor) -> list[bool]:
        """What the pipeline's safety checker says of images (B, 3, h, w) in [0, 1]; all are, where it has none."""


def noise_of_seeds(seeds: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal (len(seeds), *shape) on the CPU, each image from its own seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def freeze(*parts: torch.nn.Module) -> None:
    for part in parts:
        part.eval().requires_grad_(False)


def straight_through_clamp(images: torch.Tensor) -> torch.Tensor:
    """Clamp to [0, 1] forward, identity backward: saturated pixels keep their gradient (ours)."""
    return images + (images.clamp(0, 1) - images).detach()


def signal_and_noise(scheduler: Any, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t), 0-dim, float32 on the CPU, as the schedule and its steps t are: nobody waits
    for the device to read them."""
    abar = scheduler.alphas_cumprod[t]
    return abar.sqrt(), (1 - abar).sqrt()


def from_model_output(scheduler: Any, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> Prediction:
    """The denoiser's output, of whatever kind it was trained for, as clean and noise estimates (paper, Eq. 8)."""
    signal, sigma = signal_and_noise(scheduler, t)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return Prediction((x_t - sigma * output) / signal, output)
    if kind == "v_prediction":
        return Prediction(signal * x_t - sigma * output, signal * output + sigma * x_t)
    return Prediction(output, (x_t - signal * output) / sigma)


def to_model_output(scheduler: Any, prediction: Prediction, t: torch.Tensor) -> torch.Tensor:
    """Undo `from_model_output`, for the scheduler's step."""
    signal, sigma = signal_and_noise(scheduler, t)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return prediction.noise
    if kind == "v_prediction":
        return signal * prediction.noise - sigma * prediction.x_0
    return prediction.x_0
