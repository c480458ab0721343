"""Stable Diffusion XL, and its few-step distillations."""

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families import stable_diffusion


class Adapter(stable_diffusion.Adapter):
    """The states of both text encoders, the pooled state, and six numbers of size: of the image, where it was cropped
    (nowhere), and the size asked for."""

    def encode(self, prompt: str) -> Arguments:
        pipeline = self.pipeline
        states, _, pooled, _ = pipeline.encode_prompt(
            prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if prompt == "" and pipeline.config.force_zeros_for_empty_prompt:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        side = self.side * pipeline.vae_scale_factor
        sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=states.dtype, device=pipeline.device)
        added = {"text_embeds": pooled, "time_ids": sizes}
        return {"encoder_hidden_states": states, "added_cond_kwargs": added}
