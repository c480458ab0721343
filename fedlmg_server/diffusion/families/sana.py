"""Sana: few and deep latents, linear attention."""

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """Gemma's states with their mask, without the pipeline's own instruction of 300 tokens; flow matching."""

    def encode(self, prompt: str) -> Arguments:
        states, mask, _, _ = self.pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False, device=self.pipeline.device, complex_human_instruction=None
        )
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        return super().denoise(x, t * self.config.timestep_scale, arguments)
