"""PRX."""

import torch

from fedlmg_server.diffusion.conditioning import Arguments
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """T5Gemma's states with their mask; flow matching."""

    patch = 2

    def encode(self, prompt: str) -> Arguments:
        # The pipeline's own way cleans text of the web, by a package that nothing else here needs.
        pipeline, options = self.pipeline, {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        tokens = pipeline.tokenizer(prompt, **options).to(pipeline.device)
        mask = tokens.attention_mask.bool()
        states = pipeline.text_encoder(input_ids=tokens.input_ids, attention_mask=mask).last_hidden_state
        return {"encoder_hidden_states": states, "attention_mask": mask}

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        return super().denoise(x, t / 1000, arguments)
