"""FLUX.2-klein, base and distilled."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family
from fedlmg_server.diffusion.families.packing import from_tokens, positions, to_tokens


class Adapter(Family):
    """Three layers of Qwen3's states; flow matching on latents in squares of 2 x 2. The distilled model takes no
    guidance by the prompt."""

    has_own_sigmas = True

    @property
    def has_two_passes(self) -> bool:
        return not self.pipeline.config.is_distilled

    def encode(self, prompt: str) -> Arguments:
        return {"encoder_hidden_states": self.pipeline.encode_prompt(prompt, device=self.pipeline.device)[0]}

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        height, width = x.shape[-2:]
        length = arguments["encoder_hidden_states"].shape[1]
        of_text = torch.zeros(length, 4, device=x.device)
        of_text[:, 3] = torch.arange(length, device=x.device)
        of_image = positions(height, width, 4, x.device)
        places = {"txt_ids": of_text, "img_ids": of_image}
        tokens = self.denoiser(
            to_tokens(x), timestep=t / 1000, guidance=None, **places, return_dict=False, **arguments
        )[0]
        return from_tokens(tokens, height, width)

    def decode(self, decoder: Any, x_0: torch.Tensor) -> torch.Tensor:
        """The statistics of the autoencoder's BatchNorm are those of the squares."""
        norm = self.vae.bn
        std = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        latents = x_0 * std.view(1, -1, 1, 1) + norm.running_mean.view(1, -1, 1, 1)
        return decoder.decode(F.pixel_shuffle(latents, 2).to(decoder.dtype)).sample

    def shift_exponent(self, num_steps: int, config: Any) -> float:
        return compute_empirical_mu(self.num_tokens, num_steps)
