"""Flux.1, dev and schnell."""

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family
from fedlmg_server.diffusion.families.packing import pack, positions, unpack


class Adapter(Family):
    """T5's states and CLIP's pooled state; flow matching on packed latents. Dev is told a guidance scale, schnell none,
    and both take one pass."""

    has_own_sigmas = True
    patch = 2

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.config.in_channels // 4, self.side, self.side

    @property
    def has_two_passes(self) -> bool:
        return False

    def encode(self, prompt: str) -> Arguments:
        states, pooled, _ = self.pipeline.encode_prompt(prompt, device=self.pipeline.device)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def tell(self, arguments: Arguments, scale: float) -> Arguments:
        if not self.config.guidance_embeds:
            return arguments
        states = arguments["encoder_hidden_states"]
        return {**arguments, "guidance": torch.full((len(states),), scale, device=states.device)}

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        height, width = x.shape[-2:]
        of_text = torch.zeros(arguments["encoder_hidden_states"].shape[1], 3, device=x.device)
        of_image = positions(height // 2, width // 2, 3, x.device)
        places = {"txt_ids": of_text, "img_ids": of_image}
        tokens = self.denoiser(pack(x), timestep=t / 1000, **places, return_dict=False, **arguments)[0]
        return unpack(tokens, height, width)
