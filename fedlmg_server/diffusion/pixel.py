"""Pixel diffusion models (`UNet2DModel`) behind the backend contract: no autoencoder, no classifier-free guidance."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline

from fedlmg_server.diffusion.backend import freeze, noise_of_seeds, straight_through_clamp
from fedlmg_server.diffusion.conditioning import label_ids
from fedlmg_server.diffusion.prediction import Prediction, from_model_output


class PixelBackend:
    """A frozen pixel model.

    A class-conditional model knows `class_names`, in the order of its labels. An unconditional model generates images
    of any class, and the classifier's guidance chooses the class.
    """

    def __init__(self, pipeline: DiffusionPipeline, scheduler: Any, class_names: list[str]):
        self.denoiser, self.scheduler = pipeline.unet, scheduler
        self.pixels: int | None = self.denoiser.config.sample_size
        self.labels = {name: index for index, name in enumerate(class_names)}
        self.device, self.dtype = pipeline.device, pipeline.dtype
        freeze(self.denoiser)
        self.denoiser.to(memory_format=torch.channels_last)

    def set_timesteps(self, num_steps: int) -> None:
        self.scheduler.set_timesteps(num_steps)

    def initial_noise(self, seeds: list[int]) -> torch.Tensor:
        config = self.denoiser.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        return noise_of_seeds(seeds, shape).to(self.device) * self.scheduler.init_noise_sigma

    def condition(self, class_names: list[str], seeds: Sequence[int] = ()) -> torch.Tensor | None:
        """Labels int64 (B,), or None for an unconditional model."""
        if self.denoiser.config.num_class_embeds is None:
            return None
        return torch.tensor(label_ids(class_names, self.labels), device=self.device)

    def predict(
        self, x_t: torch.Tensor, index: int, condition: torch.Tensor | None, guidance_scale: float
    ) -> Prediction:
        steps = torch.full((len(x_t),), int(self.scheduler.timesteps[index]), device=self.device)
        output = self.denoiser(x_t.to(self.dtype), steps, class_labels=condition).sample
        return from_model_output(self.scheduler, output[:, : x_t.shape[1]].float(), x_t, index)

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        return straight_through_clamp(x_0 / 2 + 0.5)

    decode_for_guidance = decode

    def save_memory(self) -> str:
        return ""

    def check_safety(self, images: torch.Tensor) -> list[bool]:
        return [True] * len(images)
