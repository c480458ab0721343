"""What an adapter says of its kind of pipeline; the base is a transformer on plain latents that takes text."""

from typing import Any

import torch
from diffusers import DiffusionPipeline

from fedlmg_server.diffusion.conditioning import Arguments, Conditioning, Prompts


class Family:
    """One opened pipeline. Shapes: B rows, C channels, H x W latents, h x w pixels."""

    has_own_sigmas = False
    """Whether the pipeline gives its scheduler sigmas from 1 to 1 / steps, before any shift."""
    patch = 1
    """Side of the square of latents that is one image token."""

    def __init__(self, pipeline: DiffusionPipeline, side: int | None = None, config: Any = None):
        """side: of the latents; None: the denoiser's own. config: the denoiser's, of a pipeline that is opened for its
        prompts alone, without it."""
        self.pipeline, self.vae, self.denoiser = pipeline, pipeline.vae, self.find_denoiser(pipeline)
        self.config = config or self.denoiser.config
        self.side = side or self.config.sample_size
        self.condition: Conditioning = self.make_condition()

    def find_denoiser(self, pipeline: DiffusionPipeline) -> Any:
        return pipeline.transformer

    def make_condition(self) -> Conditioning:
        return Prompts(self.encode, self.pipeline.tokenizer)

    def encode(self, prompt: str) -> Arguments:
        """Keyword arguments of `denoise` for one prompt, one row each; the empty prompt stands for no class."""
        raise NotImplementedError

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the sampler works on."""
        return self.config.in_channels, self.side, self.side

    @property
    def num_tokens(self) -> int:
        """Image tokens of one picture."""
        return (self.side // self.patch) ** 2

    @property
    def has_two_passes(self) -> bool:
        """Whether classifier-free guidance asks the denoiser with and without the class."""
        return True

    def tell(self, arguments: Arguments, scale: float) -> Arguments:
        """The arguments of the one pass, with the guidance scale for a denoiser that takes it as an input."""
        return arguments

    def combine(self, without: torch.Tensor, given: torch.Tensor, scale: float) -> torch.Tensor:
        """The guided output (B, C, H, W) of both passes."""
        return without + scale * (given - without)

    def denoise(self, x: torch.Tensor, t: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        """The output (B, at least C, H, W) at the scheduler's time steps t (B,); of a flow, noise - x_0."""
        return self.denoiser(x, timestep=t, return_dict=False, **arguments)[0]

    def decode(self, decoder: Any, x_0: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, h, w), about from -1 to 1. decoder: the pipeline's own autoencoder, or a tiny one."""
        return decoder.decode(unscale(decoder.config, x_0).to(decoder.dtype)).sample

    def shift_exponent(self, num_steps: int, config: Any) -> float:
        """`mu` of a flow schedule that shifts with the number of image tokens; config: the scheduler's."""
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return low + (high - low) * (self.num_tokens - few) / (many - few)


def unscale(config: Any, x_0: torch.Tensor) -> torch.Tensor:
    """Latents as the autoencoder made them, of latents as the denoiser knows them; config: the autoencoder's."""
    latents = x_0 / config.scaling_factor
    if mean := config.get("latents_mean"):
        shape = (1, len(mean), 1, 1)
        std, mean = (torch.tensor(values).view(shape).to(x_0) for values in (config.latents_std, mean))
        latents = x_0 * std / config.scaling_factor + mean
    if shift := config.get("shift_factor"):
        latents = latents + shift
    return latents
