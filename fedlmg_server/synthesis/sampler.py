"""Guided sampling: a page of maths in the paper's words.

x_T   (B, C, H, W)  initial noise             x_0   (B, C, H, W)  clean estimate at a step
noise (B, C, H, W)  epsilon estimate          signal, sigma       weights of both in x_t
The paper's Eq. 10 as printed ascends the loss; the sign here descends it, as Eq. 2 and the authors' code do.
"""

from dataclasses import dataclass
from typing import Any

import torch

from common.config.synthesis import OURS, GuidanceMethod
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.diffusion.prediction import (
    LEAST_SIGNAL,
    Prediction,
    is_flow,
    move,
    noise_level,
    to_model_output,
    weights,
)
from fedlmg_server.synthesis.guidance import Loss, gradient, length, unit


@dataclass(frozen=True)
class SamplingSettings:
    num_inference_steps: int
    guidance_scale: float
    """Classifier-free guidance."""
    guidance_strength: float
    """Length of the guidance step as a share of the noise estimate's norm; of a raw step, the gradient's factor."""
    guided_until: float
    """Steps are guided from the first on, until this share of x_t is signal."""
    method: GuidanceMethod = OURS


def sample(
    backend: DiffusionBackend,
    x_T: torch.Tensor,  # (B, C, H, W)
    condition: Any,
    settings: SamplingSettings,
    loss: Loss | None = None,
    generators: list[torch.Generator] | None = None,
) -> torch.Tensor:
    """Images (B, 3, h, w) in [0, 1]. Without a loss, plain sampling: the prompts-only baseline.

    `generators`, one per image, give the noise of samplers that add some at every step.
    """
    scheduler, x_t = backend.scheduler, x_T
    for index, t in enumerate(scheduler.timesteps):
        if loss is not None and is_guided(scheduler, index, settings):
            x_t, prediction = guide(backend, x_t, index, condition, settings, loss)
        else:
            prediction = _predict(backend, x_t, index, condition, settings)
        output = to_model_output(scheduler, prediction, index)
        x_t = scheduler.step(output, t, x_t, generator=generators, return_dict=False)[0]
    with torch.no_grad():
        return backend.decode(x_t)


def is_guided(scheduler: Any, index: int, settings: SamplingSettings) -> bool:
    """Not at the end of a variance-preserving schedule with zero terminal signal: where x_t is all noise, to move the
    noise estimate says nothing of x_0."""
    has_signal = is_flow(scheduler) or bool(weights(scheduler, index)[0] ** 2 > LEAST_SIGNAL)
    return has_signal and 1 - noise_level(scheduler, index) < settings.guided_until


@torch.no_grad()
def _predict(
    backend: DiffusionBackend, x_t: torch.Tensor, index: int, condition: Any, settings: SamplingSettings
) -> Prediction:
    return backend.predict(x_t, index, condition, settings.guidance_scale)


def guide(
    backend: DiffusionBackend,
    x_t: torch.Tensor,
    index: int,
    condition: Any,
    settings: SamplingSettings,
    loss: Loss,
) -> tuple[torch.Tensor, Prediction]:
    """x_t and the guided prediction at it, with g the gradient of the loss (paper, Eqs. 8-10).

    One pass: noise + s ||noise|| g / ||g|| (the scale-free length is ours), or, raw, noise + s sigma g.
    Two passes: x_t moves by -sigma times the former, or, raw, by -s g (the authors' code).
    """
    method = settings.method
    if method.through_denoiser:
        x_t = x_t.detach().requires_grad_()
        prediction = backend.predict(x_t, index, condition, settings.guidance_scale)
        g = gradient(loss(backend.decode_for_guidance(prediction.x_0)), x_t)
    else:
        prediction = _predict(backend, x_t, index, condition, settings)
        x_0 = prediction.x_0.requires_grad_()
        g = gradient(loss(backend.decode_for_guidance(x_0)), x_0)
    x_t, prediction = x_t.detach(), Prediction(prediction.x_0.detach(), prediction.noise.detach())
    _, sigma = weights(backend.scheduler, index)
    step = settings.guidance_strength * (g if method.raw_step else length(prediction.noise) * unit(g))
    if method.denoiser_passes == 2:
        x_t = x_t - (step if method.raw_step else sigma * step)
        return x_t, _predict(backend, x_t, index, condition, settings)
    return x_t, move(backend.scheduler, prediction, x_t, index, sigma * step if method.raw_step else step)
