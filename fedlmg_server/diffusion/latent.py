"""Text-to-image pipelines of the Stable Diffusion 1 and 2 family behind the backend contract."""

from importlib import metadata
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from common.config import ConfigError
from fedlmg_server.diffusion.backend import Prediction, from_model_output, straight_through_clamp
from fedlmg_server.diffusion.pretrain import PROMPT, tokenize

EMBEDDED = Path("fedlmg_server") / "diffusion" / "assets" / "digits"


def embedded_folder() -> Path:
    """The pipeline that ships with FedLMG.

    A Flower bundle carries no weights, so this looks beside this file, in the installed distribution, and in the
    checkout an editable install points to.
    """
    roots = [Path(__file__).parents[2]]
    try:
        distribution = metadata.distribution("fedlmg")
        roots.append(Path(str(distribution.locate_file(""))))
        if origin := distribution.read_text("direct_url.json"):
            roots.append(Path(origin.split('"file://', 1)[-1].split('"', 1)[0]))
    except metadata.PackageNotFoundError:
        pass
    for root in roots:
        if (root / EMBEDDED / "unet" / "diffusion_pytorch_model.safetensors").exists():
            return root / EMBEDDED
    raise ConfigError(
        f"the embedded diffusion model is not in {' or '.join(map(str, roots))}: install fedlmg from its checkout or "
        "wheel, or set the config key 'diffusion-model' to a pipeline folder"
    )


def check(name: str) -> str:
    """What `from_pretrained` opens for `digits` (embedded), a diffusers folder, or a hub id.

    Raises
    ------
    ConfigError: a folder that holds no pipeline.
    """
    source = embedded_folder() if name == "digits" else Path(name).expanduser()
    if source.is_dir() and not (source / "model_index.json").exists():
        raise ConfigError(f"'{source}' is no diffusers pipeline: it has no model_index.json")
    return str(source) if source.is_dir() else name


def load(name: str, device: torch.device) -> "LatentBackend":
    """A backend from `digits` (embedded), a diffusers folder, or a hub id.

    Raises
    ------
    ConfigError: it is no Stable Diffusion pipeline.
    """
    source = check(name)
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
