"""From a name to a backend: which pipelines are supported, and how each is opened."""

import json
import re
from pathlib import Path

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from huggingface_hub import list_repo_files, try_to_load_from_cache

from common.config import ConfigError
from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import conditioning, location
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.diffusion.pixel import PixelBackend

FAMILIES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "LatentConsistencyModelPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
    "DiTPipeline": DiTPipeline,
    "DDPMPipeline": DDPMPipeline,
    "DDIMPipeline": DDIMPipeline,
}
"""Class named in `model_index.json` to the class it is opened as."""
CONDITIONING = {
    StableDiffusionPipeline: conditioning.stable_diffusion,
    StableDiffusionXLPipeline: conditioning.stable_diffusion_xl,
    DiTPipeline: conditioning.class_labels,
}
VARIANT = r"/[^/.]+\.([A-Za-z]\w*)(?:-\d+-of-\d+)?\.safetensors$"
"""Of a file of weights."""
MOST_SHAPES = 256
"""That a part is compiled for."""
SCHEDULERS = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "dpm-solver++": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
}


def load_backend(config: SynthesisConfig, device: torch.device) -> DiffusionBackend:
    """The backend of `diffusion-model`: an embedded model, a diffusers folder, or a hub id with or without a revision.

    Opened from safetensors only; `HF_HUB_OFFLINE` is honoured by the hub's library.

    Raises
    ------
    ConfigError: no pipeline there, or one of a family that is not supported.
    """
    source = location.find_pipeline(config.diffusion_model)
    pipeline, decoder = _open(source, config, _dtype(device))
    noise_schedule = make_scheduler(pipeline, config.sampler)
    pipeline.to(device)
    if not hasattr(pipeline, "vae"):
        backend = PixelBackend(pipeline, noise_schedule, _class_names(Path(source)))
    else:
        conditions = CONDITIONING[type(pipeline)](pipeline)
        backend = LatentBackend(pipeline, noise_schedule, conditions, decoder and decoder.to(device))
    if config.compile:
        _compile(backend)
    return backend


def _compile(backend: LatentBackend | PixelBackend) -> None:
    """At their first call with each shape. Shapes are static, so that an image depends on its batch's size alone and
    not on which sizes a process met before: not on whether these were too many, either."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)
    parts = [backend.denoiser]
    if isinstance(backend, LatentBackend):
        parts += {id(vae): vae.decoder for vae in (backend.vae, backend.guidance_vae)}.values()
    for part in parts:
        part.compile(dynamic=False)


def _open(source: str, config: SynthesisConfig, dtype: torch.dtype) -> tuple[DiffusionPipeline, AutoencoderTiny | None]:
    """The pipeline and the decoder for gradients."""
    source, revision = location.split_revision(source)
    try:
        family = DiffusionPipeline.load_config(source, revision=revision).get("_class_name")
        if family not in FAMILIES:
            raise ConfigError(f"it is a {family}, which is not supported; supported are {', '.join(FAMILIES)}")
        kind = FAMILIES[family]
        pipeline = _from_pretrained(kind, source, revision, dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cannot open '{config.diffusion_model}' as a diffusion pipeline: {reason}") from None
    return pipeline, _open_decoder(config.guidance_decoder, dtype) if config.guidance_decoder else None


def _from_pretrained(
    kind: type[DiffusionPipeline], source: str, revision: str | None, dtype: torch.dtype
) -> DiffusionPipeline:
    """The plain weights, else those of the one variant that is there, such as `fp16`.

    Raises
    ------
    OSError, ValueError: neither can be opened.
    """
    given = {"revision": revision, "use_safetensors": True, "dtype": dtype}
    try:
        return kind.from_pretrained(source, **given)
    except (OSError, ValueError):
        variants = _variants(source, revision)
        if len(variants) != 1:
            raise
    return kind.from_pretrained(source, variant=variants.pop(), **given)


def _variants(source: str, revision: str | None) -> set[str]:
    """Of the weights in a folder or a hub's repository: `fp16` of `unet/diffusion_pytorch_model.fp16.safetensors`."""
    return {match[1] for file in _files(source, revision) if (match := re.search(VARIANT, file))}


def _files(source: str, revision: str | None) -> list[str]:
    """Of a folder or a hub's repository; those that were downloaded before where the hub cannot be reached."""
    folder = Path(source)
    if not folder.is_dir():
        try:
            return list_repo_files(source, revision=revision)
        except OSError:
            folder = Path(try_to_load_from_cache(source, "model_index.json", revision=revision) or "").parent
    return [str(path) for path in folder.glob("*/*")]


def _open_decoder(source: str, dtype: torch.dtype) -> AutoencoderTiny:
    try:
        return AutoencoderTiny.from_pretrained(source, use_safetensors=True, torch_dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cannot open 'guidance-decoder' {source} as a tiny autoencoder: {reason}") from None


def _dtype(device: torch.device) -> torch.dtype:
    """Denoiser and autoencoder run in bfloat16 on a GPU that has it; the sampler's state and the moments are float32
    everywhere."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def make_scheduler(pipeline: DiffusionPipeline, sampler: str):
    """The sampler asked for, on the noise schedule that the model was trained with."""
    changes = {"clip_sample": False} if hasattr(pipeline, "vae") else {}
    if sampler == "ddpm":
        changes["variance_type"] = "fixed_small"
    return SCHEDULERS[sampler].from_config(pipeline.scheduler.config, **changes)


def _class_names(folder: Path) -> list[str]:
    """A pixel model's classes from `class_names.json` in its folder; without it, none."""
    path = folder / "class_names.json"
    return json.loads(path.read_text()) if path.exists() else []
