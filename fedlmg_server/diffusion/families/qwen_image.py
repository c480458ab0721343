"""Qwen-Image."""

from typing import Any

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family
from fedlmg_server.diffusion.families.packing import pack, unpack


class Adapter(Family):
    """Qwen2.5-VL's states, as many as the prompt has tokens; flow matching on packed latents of a video autoencoder.
    The guided output keeps the length of the one with the class, token by token."""

    has_own_sigmas = True
    patch = 2

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.config.in_channels // 4, self.side, self.side

    def encode(self, prompt: str) -> Arguments:
        states, _ = self.pipeline.encode_prompt(prompt, device=self.pipeline.device)
        mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}

    def combine(self, without: torch.Tensor, given: torch.Tensor, scale: float) -> torch.Tensor:
        guided, asked = pack(super().combine(without, given, scale)), pack(given)
        guided = guided * (asked.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return unpack(guided, *given.shape[-2:])

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        height, width = x.shape[-2:]
        shapes = [[(1, height // 2, width // 2)]] * len(x)
        tokens = self.denoiser(pack(x), timestep=t / 1000, img_shapes=shapes, return_dict=False, **arguments)[0]
        return unpack(tokens, height, width)

    def decode(self, decoder: Any, x_0: torch.Tensor) -> torch.Tensor:
        """A picture is a video of one frame."""
        config = self.vae.config
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1).to(x_0) for values in (config.latents_mean, config.latents_std)
        )
        return decoder.decode((x_0 * std + mean).unsqueeze(2).to(decoder.dtype)).sample[:, :, 0]
