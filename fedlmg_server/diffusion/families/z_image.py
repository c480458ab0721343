"""Z-Image and Z-Image-Turbo."""

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """Qwen3's states, as many as the prompt has tokens; flow matching backwards: time counts from noise, and the output
    is x_0 - noise."""

    has_own_sigmas = True
    patch = 2

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.denoiser.in_channels, self.side, self.side

    def encode(self, prompt: str) -> Arguments:
        (states,), _ = self.pipeline.encode_prompt(prompt, self.pipeline.device, do_classifier_free_guidance=False)
        return {"states": states[None], "lengths": torch.tensor([len(states)])}

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        lengths = arguments["lengths"].tolist()
        prompts = [row[:length] for row, length in zip(arguments["states"], lengths, strict=True)]
        pictures = list(x.unsqueeze(2).unbind())
        outputs = self.denoiser(pictures, (1000 - t) / 1000, prompts, return_dict=False)[0]
        return -torch.stack(outputs).squeeze(2)
