"""PixArt-Alpha and PixArt-Sigma."""

import torch
from diffusers import PixArtSigmaPipeline

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """T5's states with their mask; of the large Alpha model, also the picture's size. Variance-preserving."""

    patch = 2

    def encode(self, prompt: str) -> Arguments:
        pipeline = self.pipeline
        length = 300 if isinstance(pipeline, PixArtSigmaPipeline) else 120
        states, mask, _, _ = pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False, device=pipeline.device, max_sequence_length=length
        )
        encoded = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        takes_size = self.config.get("use_additional_conditions")
        if not (self.config.get("sample_size") == 128 if takes_size is None else takes_size):
            return encoded
        pixels = self.side * pipeline.vae_scale_factor
        return encoded | {"size": torch.tensor([[pixels, pixels, 1.0]], dtype=states.dtype, device=pipeline.device)}

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        rest = {key: value for key, value in arguments.items() if key != "size"}
        size = arguments.get("size")
        parts = (None, None) if size is None else (size[:, :2], size[:, 2:])
        added = dict(zip(("resolution", "aspect_ratio"), parts, strict=True))
        return super().denoise(x, t, {**rest, "added_cond_kwargs": added})
