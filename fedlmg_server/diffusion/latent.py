"""Latent diffusion models behind the backend contract: a denoiser on the latents of an autoencoder.

Stable Diffusion 1, 2 and XL, their few-step distillations, and DiT differ in their conditioning only.
"""

from typing import Any

import torch
from accelerate.utils import slice_tensors
from diffusers import DiffusionPipeline

from fedlmg_server.diffusion.backend import (
    Prediction,
    freeze,
    from_model_output,
    noise_of_seeds,
    straight_through_clamp,
)
from fedlmg_server.diffusion.conditioning import Arguments, Conditioning


class LatentBackend:
    """The frozen denoiser and autoencoder of one pipeline; `guidance_decoder`, if given, decodes for gradients only."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        scheduler: Any,
        conditioning: Conditioning,
        guidance_decoder: Any = None,
    ):
        self.pipeline, self.scheduler, self.condition = pipeline, scheduler, conditioning
        self.device, self.dtype = pipeline.device, pipeline.dtype
        self.denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        self.vae, self.guidance_vae = pipeline.vae, guidance_decoder or pipeline.vae
        freeze(*(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)))
        freeze(self.guidance_vae)
        for part in (self.denoiser, self.vae, self.guidance_vae):
            part.to(memory_format=torch.channels_last)

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        config = self.denoiser.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        return noise_of_seeds(seeds, shape).to(self.device) * self.scheduler.init_noise_sigma

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: Arguments, guidance_scale: float) -> Prediction:
        with_class = slice_tensors(condition, slice(len(x_t), None))
        if width := self.denoiser.config.get("time_cond_proj_dim"):
            # A latent consistency model takes the guidance scale as an input, so one call is enough.
            scales = torch.full((len(x_t),), guidance_scale - 1.0, device=self.device)
            embedded = self.pipeline.get_guidance_scale_embedding(scales, width, self.dtype)
            output = self._denoise(x_t, t, {**with_class, "timestep_cond": embedded})
        elif guidance_scale == 1:
            output = self._denoise(x_t, t, with_class)
        else:
            without, given = self._denoise(torch.cat([x_t, x_t]), t, condition).chunk(2)
            output = without + guidance_scale * (given - without)
        return from_model_output(self.scheduler, output, x_t, t)

    def _denoise(self, x_t: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        """The denoiser's output in float32, without the channels of a learned variance."""
        steps = torch.full((len(x_t),), int(t), device=self.device)
        output = self.denoiser(x_t.to(self.dtype), timestep=steps, **arguments).sample
        return output[:, : x_t.shape[1]].float()

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        return _decode(self.vae, x_0)

    def decode_for_guidance(self, x_0: torch.Tensor) -> torch.Tensor:
        return _decode(self.guidance_vae, x_0)

    def check_safety(self, images: torch.Tensor) -> list[bool]:
        if getattr(self.pipeline, "safety_checker", None) is None:
            return [True] * len(images)
        # The checker blackens the images that it rejects, in place. So it gets a copy.
        arrays = images.permute(0, 2, 3, 1).float().cpu().numpy().copy()
        _, unsafe = self.pipeline.run_safety_checker(arrays, self.device, self.dtype)
        return [not found for found in unsafe]


def _decode(vae: Any, x_0: torch.Tensor) -> torch.Tensor:
    images = vae.decode(_scale_back(vae.config, x_0).to(vae.dtype)).sample.float()
    return straight_through_clamp(images / 2 + 0.5)


def _scale_back(config: Any, x_0: torch.Tensor) -> torch.Tensor:
    """Latents as the autoencoder made them, of latents as the denoiser knows them."""
    latents = x_0 / config.scaling_factor
    if mean := config.get("latents_mean"):
        shape = (1, len(mean), 1, 1)
        std, mean = (torch.tensor(values).view(shape).to(x_0) for values in (config.latents_std, mean))
        latents = x_0 * std / config.scaling_factor + mean
    if shift := config.get("shift_factor"):
        latents = latents + shift
    return latents
