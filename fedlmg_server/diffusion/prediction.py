"""The maths between a denoiser's output, the clean estimate and the noise estimate, for both kinds of noise.

A noisy latent is x = signal * x_0 + sigma * noise. Variance-preserving: signal^2 + sigma^2 = 1, from the cumulative
alphas. Flow matching: signal = 1 - s and sigma = s, and the denoiser gives the velocity noise - x_0.
"""

from dataclasses import dataclass
from typing import Any

import torch

LEAST_SIGNAL = 2**-24
"""Of abar: what diffusers' solvers put in the place of zero."""
MOST_LEVERAGE = 16.0
"""How far a guided step may move x_0, in lengths of the step in the noise: sigma / signal, which a flow's first step
makes infinite. Stable Diffusion's own is 14.6 there."""
OWN_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Settings with which a solver walks between its training time steps."""


@dataclass(frozen=True)
class Prediction:
    """The clean estimate x_0 and the noise estimate epsilon, (B, C, H, W) each.

    They satisfy x_t = signal * x_0 + sigma * noise.
    """

    x_0: torch.Tensor
    noise: torch.Tensor


def is_flow(scheduler: Any) -> bool:
    """Whether it is flow matching; a solver on flow sigmas is, although it has cumulative alphas too."""
    return not hasattr(scheduler, "alphas_cumprod") or bool(scheduler.config.get("use_flow_sigmas"))


def weights(scheduler: Any, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and sigma at one of the scheduler's steps, 0-dim float32 on the CPU.

    The schedule and the time steps are on the CPU too, so reading them never waits for the device.
    """
    if is_flow(scheduler):
        s = scheduler.sigmas[index]
        return 1 - s, s
    if any(scheduler.config.get(key) for key in OWN_SIGMAS):
        signal = (1 + scheduler.sigmas[index] ** 2).rsqrt()
        return signal, signal * scheduler.sigmas[index]
    abar = scheduler.alphas_cumprod[int(scheduler.timesteps[index])]
    return abar.sqrt(), (1 - abar).sqrt()


def noise_level(scheduler: Any, index: int) -> float:
    """The share of noise in a noisy latent at a step, sigma / (signal + sigma): 1 is noise alone. It is a flow's s."""
    signal, sigma = weights(scheduler, index)
    return float(sigma / (signal + sigma))


def from_model_output(scheduler: Any, output: torch.Tensor, x_t: torch.Tensor, index: int) -> Prediction:
    """Convert the denoiser's output, of any prediction type, to clean and noise estimates (paper, Eq. 8)."""
    signal, sigma = weights(scheduler, index)
    if is_flow(scheduler):
        return Prediction(x_t - sigma * output, x_t + signal * output)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return Prediction((x_t - sigma * output) / signal, output)
    if kind == "v_prediction":
        return Prediction(signal * x_t - sigma * output, signal * output + sigma * x_t)
    return Prediction(output, (x_t - signal * output) / sigma)


def to_model_output(scheduler: Any, prediction: Prediction, index: int) -> torch.Tensor:
    """Undo `from_model_output`; the scheduler's step needs the denoiser's output."""
    if is_flow(scheduler):
        return prediction.noise - prediction.x_0
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        signal, sigma = weights(scheduler, index)
        return signal * prediction.noise - sigma * prediction.x_0
    return prediction.noise if kind == "epsilon" else prediction.x_0


def move(scheduler: Any, prediction: Prediction, x_t: torch.Tensor, index: int, step: torch.Tensor) -> Prediction:
    """The prediction with `step` added to its noise, at the same x_t.

    x_0 then moves by -sigma / signal times the step. A flow's signal may be 0, so there x_0 is what is moved, by no
    more than `MOST_LEVERAGE` steps, and the noise follows.
    """
    signal, sigma = weights(scheduler, index)
    if is_flow(scheduler):
        x_0 = prediction.x_0 - (sigma / signal).clamp(max=MOST_LEVERAGE) * step
        return Prediction(x_0, (x_t - signal * x_0) / sigma)
    noise = prediction.noise + step
    return Prediction((x_t - sigma * noise) / signal, noise)
