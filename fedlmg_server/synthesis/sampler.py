"""Guided sampling: a page of maths in the paper's words.

x_T   (B, C, H, W)  initial noise             x_0   (B, C, H, W)  clean estimate at step t
noise (B, C, H, W)  epsilon estimate          abar                cumulative alpha at step t
The paper's Eq. 10 as printed ascends the loss; the sign here descends it, as Eq. 2 and the authors' code do.
"""

from dataclasses import dataclass
from typing import Any

import torch

from fedlmg_server.diffusion.backend import DiffusionBackend, Prediction, signal_and_noise, to_model_output
from fedlmg_server.synthesis.guidance import Loss, gradient, length, unit


@dataclass(frozen=True)
class SamplingSettings:
    num_inference_steps: int
    guidance_scale: float
    """Classifier-free guidance."""
    guidance_strength: float
    """Length of the guidance step as a share of the noise estimate's norm."""
    through_denoiser: bool
    """Gradient in x_t through the denoiser (paper), or in the x_0 estimate only (MPGD)."""
    start: float
    stop: float
    """Guided part of the schedule, as fractions of its steps."""


def sample(
    backend: DiffusionBackend,
    x_T: torch.Tensor,  # (B, C, H, W)
    condition: Any,
    settings: SamplingSettings,
    loss: Loss | None = None,
) -> torch.Tensor:
    """Images (B, 3, h, w) in [0, 1]. Without a loss, plain sampling: the prompts-only rival."""
    scheduler, x_t = backend.scheduler, x_T
    num_steps = len(scheduler.timesteps)
    for index, t in enumerate(scheduler.timesteps):
        guided = loss is not None and settings.start <= index / num_steps < settings.stop
        prediction = (
            guide(backend, x_t, t, condition, settings, loss)
            if guided
            else _predict(backend, x_t, t, condition, settings)
        )
        x_t = scheduler.step(to_model_output(scheduler, prediction, t), t, x_t).prev_sample
    with torch.no_grad():
        return backend.decode(x_t)


@torch.no_grad()
def _predict(
    backend: DiffusionBackend, x_t: torch.Tensor, t: torch.Tensor, condition: Any, settings: SamplingSettings
) -> Prediction:
    return backend.predict(x_t, t, condition, settings.guidance_scale)


def guide(
    backend: DiffusionBackend,
    x_t: torch.Tensor,
    t: torch.Tensor,
    condition: Any,
    settings: SamplingSettings,
    loss: Loss,
) -> Prediction:
    """noise + s ||noise|| g / ||g||, with g the loss's gradient (paper, Eqs. 8-10; the scale-free length is ours)."""
    if settings.through_denoiser:
        x_t = x_t.detach().requires_grad_()
        prediction = backend.predict(x_t, t, condition, settings.guidance_scale)
        g = gradient(loss(backend.decode(prediction.x_0)), x_t)
    else:
        prediction = _predict(backend, x_t, t, condition, settings)
        x_0 = prediction.x_0.requires_grad_()
        g = gradient(loss(backend.decode(x_0)), x_0)
    x_t, noise = x_t.detach(), prediction.noise.detach()
    noise = noise + settings.guidance_strength * length(noise) * unit(g)
    signal, sigma = signal_and_noise(backend.scheduler, t, x_t)
    return Prediction((x_t - sigma * noise) / signal, noise)
