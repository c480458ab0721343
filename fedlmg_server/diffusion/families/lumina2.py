"""Lumina-Image 2."""

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """Gemma's states with their mask; flow matching backwards, as Z-Image's. The guided output keeps the length of the
    one with the class, row by row of the picture."""

    has_own_sigmas = True
    patch = 2

    def encode(self, prompt: str) -> Arguments:
        encoded = self.pipeline.encode_prompt(prompt, negative_prompt="", device=self.pipeline.device)
        states, mask = encoded[:2] if prompt else encoded[2:]
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def combine(self, without: torch.Tensor, given: torch.Tensor, scale: float) -> torch.Tensor:
        guided = super().combine(without, given, scale)
        return guided * (given.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        return -super().denoise(x, 1 - t / 1000, arguments)
