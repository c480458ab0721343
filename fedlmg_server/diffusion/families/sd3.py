"""Stable Diffusion 3 and 3.5."""

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """Two CLIP encoders and, where the pipeline has it, a T5; flow matching."""

    patch = 2

    def encode(self, prompt: str) -> Arguments:
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompt, None, None, device=self.pipeline.device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": states, "pooled_projections": pooled}
