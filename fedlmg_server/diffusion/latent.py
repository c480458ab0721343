"""Latent diffusion models behind the backend contract: a denoiser on the latents of an autoencoder.

What differs from one kind of pipeline to the other is in `families`.
"""

from typing import Any

import torch

from fedlmg_server.diffusion.backend import freeze, noise_of_seeds, straight_through_clamp
from fedlmg_server.diffusion.conditioning import Arguments, rows_from
from fedlmg_server.diffusion.families.family import Family
from fedlmg_server.diffusion.noise_schedule import set_timesteps
from fedlmg_server.diffusion.prediction import Prediction, from_model_output


class LatentBackend:
    """The frozen denoiser and autoencoder of one pipeline; `guidance_decoder`, if given, decodes for gradients only."""

    def __init__(self, family: Family, scheduler: Any, guidance_decoder: Any = None, pixels: int | None = None):
        self.family, self.pipeline, self.scheduler = family, family.pipeline, scheduler
        self.pixels = pixels
        self.condition = family.condition
        self.device, self.dtype = self.pipeline.device, self.pipeline.dtype
        self.denoiser, self.vae, self.guidance_vae = family.denoiser, family.vae, guidance_decoder or family.vae
        freeze(*(part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)))
        freeze(self.guidance_vae)
        for part in (self.denoiser, self.vae, self.guidance_vae):
            if all(parameter.dim() < 5 for parameter in part.parameters()):
                part.to(memory_format=torch.channels_last)
        self.computes_twice = False
        """Whether gradients compute activations twice, where a part can."""
        self.denoiser_rests = False
        """Whether the denoiser waits in the processor's memory while images are decoded."""

    def set_timesteps(self, num_steps: int) -> None:
        set_timesteps(self.scheduler, num_steps, self.family.shift_exponent, self.family.has_own_sigmas)

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        noise = noise_of_seeds(seeds, self.family.latent_shape).to(self.device)
        return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)  # A flow starts with noise alone.

    def predict(self, x_t: torch.Tensor, index: int, condition: Arguments, guidance_scale: float) -> Prediction:
        t, family = self.scheduler.timesteps[index], self.family
        if guidance_scale == 1 or not family.has_two_passes:
            with_class = rows_from(condition, len(x_t))
            output = self._denoise(x_t, t, family.tell(with_class, guidance_scale))
        else:
            without, given = self._denoise(torch.cat([x_t, x_t]), t, condition).chunk(2)
            output = family.combine(without, given, guidance_scale)
        return from_model_output(self.scheduler, output, x_t, index)

    def _denoise(self, x_t: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        """The denoiser's output in float32, without the channels of a learned variance."""
        if self.denoiser_rests:
            self.denoiser.to(self.device)
        steps = torch.full((len(x_t),), t.item(), device=self.device)
        output = self.family.denoise(x_t.to(self.dtype), steps, arguments)
        return output[:, : x_t.shape[1]].float()

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        return self._decode(self.vae, x_0)

    def decode_for_guidance(self, x_0: torch.Tensor) -> torch.Tensor:
        return self._decode(self.guidance_vae, x_0)

    def _decode(self, decoder: Any, x_0: torch.Tensor) -> torch.Tensor:
        if self.denoiser_rests and x_0.is_leaf:  # Otherwise the gradient goes on through the denoiser.
            self.denoiser.to("cpu")
        return straight_through_clamp(self.family.decode(decoder, x_0).float() / 2 + 0.5)

    def save_memory(self) -> str:
        if not self.computes_twice:
            self.computes_twice = True
            if [part for part in (self.guidance_vae, self.denoiser) if _enable_checkpoints(part)]:
                return "going on with gradients that compute activations twice"
        may_rest = self.device.type != "cpu" and getattr(self.denoiser, "hf_quantizer", None) is None
        if may_rest and not self.denoiser_rests:
            self.denoiser_rests = True
            return "going on with a denoiser that waits in the processor's memory while images are decoded"
        return ""

    def check_safety(self, images: torch.Tensor) -> list[bool]:
        if getattr(self.pipeline, "safety_checker", None) is None:
            return [True] * len(images)
        # The checker blackens the images that it rejects, in place. So it gets a copy.
        arrays = images.permute(0, 2, 3, 1).float().cpu().numpy().copy()
        _, unsafe = self.pipeline.run_safety_checker(arrays, self.device, self.dtype)
        return [not found for found in unsafe]


def _enable_checkpoints(part: Any) -> bool:
    """Whether the part has any."""
    try:
        part.enable_gradient_checkpointing()
    except ValueError:
        return False
    return True
