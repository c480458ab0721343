"""Editing the initial noise (paper, Algorithm 1, lines 6-12), with a scale-free step (ours)."""

from typing import Any

import torch

from common.config.synthesis import OURS, GuidanceMethod
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.synthesis.guidance import Loss, gradient, length, unit


def edit_noise(
    backend: DiffusionBackend,
    x_T: torch.Tensor,  # (B, C, H, W)
    condition: Any,
    loss: Loss,
    num_steps: int,
    strength: float,
    method: GuidanceMethod = OURS,
) -> torch.Tensor:
    """x_T after M = `num_steps` steps down the loss of the x_0 estimate at the first step, through the denoiser.

    Each step is `strength` of the noise's norm long, and the norm is kept, so that the result is still noise of the
    right size; a raw step is `strength` (the paper's eta) times the gradient, and the norm is free. The estimate has
    the method's classifier-free guidance.
    """
    norm = length(x_T)
    for _ in range(num_steps):
        x_T = x_T.detach().requires_grad_()
        x_0 = backend.predict(x_T, 0, condition, method.noise_editing_guidance_scale).x_0
        g = gradient(loss(backend.decode_for_guidance(x_0)), x_T)
        x_T = (x_T - strength * (g if method.raw_step else norm * unit(g))).detach()
        if not method.raw_step:
            x_T = x_T * norm / length(x_T)
    return x_T.detach()
