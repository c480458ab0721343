"""Train a small text-to-image pipeline on labelled images, for domains that no public diffusion model knows.

There are two phases, and each continues from its last checkpoint. The first trains the autoencoder. The second trains
the denoiser and the text encoder together on its latents. Step i samples its images and noise from the seed
(seed, phase, process, i), so an interrupted run ends with the same weights as one without an interruption. Every class
is drawn as often as every other, and captions contain only class names.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from torchvision.utils import save_image

from common.config import ConfigError
from common.devices import limit_threads
from common.storage.atomic import write_bytes, write_json
from fedlmg_server.diffusion.prediction import is_flow
from fedlmg_server.diffusion.pretraining import tiny_pipeline
from fedlmg_server.diffusion.pretraining.config import LATENT_CHANNELS, PretrainConfig
from fedlmg_server.diffusion.pretraining.latent_space import encode_images, standardise_latents
from fedlmg_server.diffusion.pretraining.optimising import Phase, optimise
from fedlmg_server.diffusion.pretraining.perceptual import Perceptual
from fedlmg_server.diffusion.wording import Wording
from fedlmg_server.flower.compat import forget_origin

AUTOENCODER_SHARE = 1 / 8
"""Of the hours that a training is given."""
DECODED_AT_ONCE = 256
"""Images."""


class Autoencoding(torch.nn.Module):
    """The autoencoder's loss on images (B, 3, h, w) in [-1, 1]: L1 + squared error + KL, and the perceptual distance
    where there is one."""

    def __init__(self, vae: Any, config: PretrainConfig, perceptual: Perceptual | None = None):
        super().__init__()
        self.vae, self.perceptual = vae, perceptual
        self.kl_weight, self.perceptual_weight = config.kl_weight, config.perceptual_weight

    def forward(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(images.device)
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + self.kl_weight * kl
        return loss if self.perceptual is None else loss + self.perceptual_weight * self.perceptual(decoded, images)


class Denoising(torch.nn.Module):
    """The squared error of the predicted velocity on scaled latents (B, C, H, W), as the pipeline's scheduler has it.

    tokens: the token ids of the distinct prompts, int64 (P, T). prompt: the prompt of each latent, int64 (B,).
    """

    def __init__(self, pipeline: StableDiffusionPipeline, tokens: torch.Tensor):
        super().__init__()
        self.register_buffer("tokens", tokens, persistent=False)
        self.unet, self.text_encoder, self.scheduler = pipeline.unet, pipeline.text_encoder, pipeline.scheduler

    def forward(self, latents: torch.Tensor, prompt: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        num_steps = self.scheduler.config.num_train_timesteps
        if is_flow(self.scheduler):
            sigma = torch.rand(len(latents), generator=generator).to(latents.device)
            t, share = sigma * num_steps, sigma[:, None, None, None]
            noisy, velocity = (1 - share) * latents + share * noise, noise - latents
        else:
            t = torch.randint(num_steps, (len(latents),), generator=generator).to(latents.device)
            noisy = self.scheduler.add_noise(latents, noise, t)
            velocity = self.scheduler.get_velocity(latents, noise, t)
        states = self.text_encoder(self.tokens)[0][prompt]
        return F.mse_loss(self.unet(noisy, t, states).sample.float(), velocity)


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    class_names: list[str],
    out: Path,
    config: PretrainConfig,
    start: Path | None = None,
    perceptual: Perceptual | None = None,
) -> StableDiffusionPipeline:
    """Train on images uint8 (N, 3, h, w) with labels int64 (N,), and write the pipeline (fp16) and samples to `out`.

    Checkpoints are in `out/checkpoints`; the same call continues from them. `start` is a pipeline folder to fine-tune,
    also to another objective. Classes without an image are passed over.

    Raises
    ------
    ConfigError: the text encoder cannot tell two classes apart, or `start` has other latents than the config asks for.
    """
    limit_threads()
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    if start is None:
        channels = config.latent_channels or LATENT_CHANNELS
        pipeline = tiny_pipeline.build_pipeline(images.shape[-1], seed=config.seed, latent_channels=channels)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(
            str(start), safety_checker=None, use_safetensors=True, dtype=torch.float32
        )
        forget_origin(pipeline, pipeline.vae, pipeline.unet)
        if config.latent_channels not in (None, there := pipeline.vae.config.latent_channels):
            wanted = f"--latent-channels is {config.latent_channels}, but {start} has {there}"
            raise ConfigError(f"{wanted}: leave the option out, or train from scratch")
    if is_flow(pipeline.scheduler) != (config.objective == "flow"):
        pipeline.register_modules(scheduler=tiny_pipeline.make_scheduler(config.objective))
    pipeline.set_progress_bar_config(disable=True)
    device = accelerator.device
    members = [rows for label in range(len(class_names)) if len(rows := (labels == label).nonzero()[:, 0])]
    tokens = tokenize(pipeline, [*map(Wording().prompt, class_names), ""]).to(device)
    _check_distinct(class_names, tokens.tolist())

    def batch_rows(generator: torch.Generator) -> torch.Tensor:
        drawn = torch.randint(2**31, (config.batch_size, 2), generator=generator)
        return torch.stack([(rows := members[a % len(members)])[b % len(rows)] for a, b in drawn.tolist()])

    def to_unit(rows: torch.Tensor) -> torch.Tensor:
        return images[rows].to(device).float() / 127.5 - 1

    vae_share, seconds = AUTOENCODER_SHARE if config.vae_steps else 0.0, 3600 * config.hours
    vae_steps, vae_seconds = optimise(
        Autoencoding(pipeline.vae, config, perceptual),
        lambda generator: (to_unit(batch_rows(generator)),),
        Phase("autoencoder", config.vae_steps, config.vae_learning_rate, seconds * vae_share),
        accelerator,
        config,
        out,
    )
    mean, std = encode_images(pipeline.vae, images)
    if start is None:
        mean, std = standardise_latents(pipeline.vae, mean, std)

    def latents_and_prompts(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = batch_rows(generator)
        noise = torch.randn((len(rows), *mean.shape[1:]), generator=generator)
        latents = (mean[rows] + std[rows] * noise) * pipeline.vae.config.scaling_factor
        dropped = torch.rand(len(rows), generator=generator) < config.condition_dropout
        prompt = torch.where(dropped, len(class_names), labels[rows])
        return latents.to(device), prompt.to(device)

    def snapshot() -> None:
        save(pipeline, out)
        grid = sample(pipeline, class_names, per_class=10, seed=config.seed)
        save_image(grid, out / "samples.png", nrow=len(class_names), padding=1)

    denoiser_steps, denoiser_seconds = optimise(
        Denoising(pipeline, tokens),
        latents_and_prompts,
        Phase("denoiser", config.denoiser_steps, config.denoiser_learning_rate, seconds * (1 - vae_share)),
        accelerator,
        config,
        out,
        ema=True,
        snapshot=snapshot,
    )
    if accelerator.is_main_process:
        steps = {"vae_steps": vae_steps, "denoiser_steps": denoiser_steps}
        taken = {"seconds": round(vae_seconds + denoiser_seconds), "num_images": len(images)}
        write_json(out / "training.json", taken | steps)
    return pipeline


def _check_distinct(class_names: list[str], tokens: list[list[int]]) -> None:
    read: dict[tuple[int, ...], str] = {}
    for name, row in zip(class_names, tokens, strict=False):
        if (other := read.setdefault(tuple(row), name)) != name:
            raise ConfigError(f"the text encoder cannot tell class '{other}' from '{name}': rename one of them")


def tokenize(pipeline: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    """The token ids of the prompts, int64 (len(prompts), T), padded to the tokenizer's length."""
    tokenizer = pipeline.tokenizer
    options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    return tokenizer(prompts, return_tensors="pt", **options).input_ids


def save(pipeline: StableDiffusionPipeline, out: Path) -> None:
    """Write the pipeline folder in half precision; the pipeline in memory keeps its dtype."""
    for name in ("vae", "unet", "text_encoder"):
        module = getattr(pipeline, name)
        weights = {key: value.detach().clone() for key, value in module.state_dict().items()}
        module.half().save_pretrained(out / name)
        module.float().load_state_dict(weights)
    pipeline.tokenizer.save_pretrained(out / "tokenizer")
    pipeline.scheduler.save_pretrained(out / "scheduler")
    write_bytes(out / "model_index.json", pipeline.to_json_string().encode())


@torch.no_grad()
def sample(pipeline: StableDiffusionPipeline, class_names: list[str], per_class: int, seed: int) -> torch.Tensor:
    """Unguided images (per_class * classes, 3, h, w) in [0, 1] on the CPU; the class varies fastest."""
    for name in ("vae", "unet", "text_encoder"):
        getattr(pipeline, name).eval()
    prompts = [Wording().prompt(name) for name in class_names] * per_class
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + index) for index in range(len(prompts))]
    output = pipeline(
        prompts, num_inference_steps=20, guidance_scale=3.0, generator=generators, output_type="pt", return_dict=True
    )
    return output.images.cpu()


@torch.no_grad()
def decode_again(pipeline: StableDiffusionPipeline, images: torch.Tensor) -> torch.Tensor:
    """Images uint8 (N, 3, h, w) as the autoencoder gives them back, the same."""
    vae, parts = pipeline.vae.eval(), []
    for part in images.split(DECODED_AT_ONCE):
        latents = vae.encode(part.to(vae.device).float() / 127.5 - 1).latent_dist.mean
        parts.append(((vae.decode(latents).sample / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return torch.cat(parts)
