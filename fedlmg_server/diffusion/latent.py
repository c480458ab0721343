"""Text-to-image pipelines of the Stable Diffusion 1 and 2 family behind the backend contract."""

import torch
from diffusers import StableDiffusionPipeline

from common.config import ConfigError
from fedlmg_server.diffusion import location
from fedlmg_server.diffusion.backend import Prediction, from_model_output, straight_through_clamp
from fedlmg_server.diffusion.pretrain import PROMPT, tokenize


def load(name: str, device: torch.device) -> "LatentBackend":
    """A backend from `digits` (embedded), a diffusers folder, or a hub id.

    Raises
    ------
    ConfigError: it is no Stable Diffusion pipeline.
    """
    source = location.find(name)
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            source, safety_checker=None, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cannot open '{name}' as a Stable Diffusion pipeline: {reason}") from None
    return LatentBackend(pipeline.to(device))


class LatentBackend:
    """Frozen text encoder, denoiser and autoencoder of one pipeline."""

    def __init__(self, pipeline: StableDiffusionPipeline):
        self.pipeline, self.scheduler, self.device = pipeline, pipeline.scheduler, pipeline.device
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.eval().requires_grad_(False)
        for part in (pipeline.unet, pipeline.vae):
            part.to(memory_format=torch.channels_last)
        self._embeddings: dict[str, torch.Tensor] = {}

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        config = self.pipeline.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(noise).to(self.device) * self.scheduler.init_noise_sigma

    def condition(self, class_names: list[str]) -> torch.Tensor:
        """Embeddings (2 B, T, D): the empty prompt B times, then one prompt per image."""
        prompts = [PROMPT.format(name.lower()) for name in class_names]
        return torch.stack([self._embed(prompt) for prompt in ["" for _ in prompts] + prompts])

    @torch.no_grad()
    def _embed(self, prompt: str) -> torch.Tensor:
        if prompt not in self._embeddings:
            tokens = tokenize(self.pipeline, [prompt]).to(self.device)
            self._embeddings[prompt] = self.pipeline.text_encoder(tokens)[0][0]
        return self._embeddings[prompt]

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: torch.Tensor, guidance_scale: float) -> Prediction:
        if guidance_scale == 1:
            output = self.pipeline.unet(x_t, t, condition[len(x_t) :]).sample
        else:
            without, with_prompt = self.pipeline.unet(torch.cat([x_t, x_t]), t, condition).sample.chunk(2)
            output = without + guidance_scale * (with_prompt - without)
        return from_model_output(self.scheduler, output, x_t, t)

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        images = self.pipeline.vae.decode(x_0 / self.pipeline.vae.config.scaling_factor).sample
        return straight_through_clamp(images / 2 + 0.5)
