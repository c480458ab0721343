"""Stable Diffusion 1 and 2, and latent consistency models made of them."""

from typing import Any

import torch
from diffusers import DiffusionPipeline

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """A UNet; the last hidden states of one text encoder."""

    def find_denoiser(self, pipeline: DiffusionPipeline) -> Any:
        return pipeline.unet

    def encode(self, prompt: str) -> Arguments:
        states, _ = self.pipeline.encode_prompt(prompt, self.pipeline.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states}

    @property
    def has_two_passes(self) -> bool:
        return not self.config.get("time_cond_proj_dim")

    def tell(self, arguments: Arguments, scale: float) -> Arguments:
        """A latent consistency model takes the guidance scale as an input, so one call is enough."""
        if not (width := self.config.get("time_cond_proj_dim")):
            return arguments
        rows = len(arguments["encoder_hidden_states"])
        scales = torch.full((rows,), scale - 1.0, device=arguments["encoder_hidden_states"].device)
        embedded = self.pipeline.get_guidance_scale_embedding(scales, width, self.denoiser.dtype)
        return {**arguments, "timestep_cond": embedded}
