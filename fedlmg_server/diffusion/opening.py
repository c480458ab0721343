"""From a model's name to a backend: its pipeline is opened, with an adapter for its kind and the run's sampler."""

import importlib
import re
from functools import partial
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderTiny, DiffusionPipeline
from diffusers.configuration_utils import FrozenDict
from huggingface_hub import list_repo_files, try_to_load_from_cache

from common.config import ConfigError
from common.config.synthesis import SynthesisConfig
from common.telling import first_line
from fedlmg_server.diffusion import families, location, vocabulary
from fedlmg_server.diffusion.backend import DiffusionBackend, freeze
from fedlmg_server.diffusion.conditioning import Prompts
from fedlmg_server.diffusion.description import Description, cannot_open, describe
from fedlmg_server.diffusion.families.family import Family
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.diffusion.lora import add_lora, identify
from fedlmg_server.diffusion.noise_schedule import make_scheduler
from fedlmg_server.diffusion.pixel import PixelBackend
from fedlmg_server.diffusion.texts import KeptPrompts, Texts
from fedlmg_server.diffusion.wording import Wording
from fedlmg_server.flower.compat import raise_recompile_limit

VARIANT = r"/[^/.]+\.([A-Za-z]\w*)(?:-\d+-of-\d+)?\.safetensors$"
"""Matches a file of weights and captures its variant, such as `fp16`."""
MOST_SHAPES = 256
"""The most input shapes for which one part of a model is compiled."""


def load_backend(config: SynthesisConfig, device: torch.device, texts: Texts | None = None) -> DiffusionBackend:
    """The backend of `diffusion-model`: an embedded model, a diffusers folder, or a hub id with or without a revision.

    texts: where encoded prompts are kept; then the model is opened without its text encoders and tokenizers.

    Only safetensors files are opened. The hub's library reads the environment variable `HF_HUB_OFFLINE`.

    Raises
    ------
    ConfigError: there is no pipeline, its family is not supported, or the LoRA weights are none for it.
    """
    # Bars of loading, which takes a moment, would stand between the lines of the run.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    description = describe(config.diffusion_model, config.diffusion_size)
    kept, wording = None, Wording.of(config)
    if texts is not None and description.entry.conditioned_on == "prompt":
        open_encoder = partial(_open_encoder, description, config, device)
        added = identify(config.diffusion_lora) if config.diffusion_lora else ""
        kept = KeptPrompts(texts, description, open_encoder, device, wording, added)
    pipeline = _open(description, config, _dtype(device), description.text_parts if kept else [])
    decoder = _open_decoder(config.guidance_decoder, _dtype(device)) if config.guidance_decoder else None
    try:
        scheduler = make_scheduler(pipeline.scheduler.config, config.sampler, description.is_flow)
    except ValueError as error:
        raise cannot_open(config.diffusion_model, error) from None
    if config.diffusion_lora:
        add_lora(pipeline.components, config.diffusion_lora, description)
    pipeline.to(device)
    if description.autoencoder is None:
        class_names = vocabulary.read_class_names(description.source)
        backend: PixelBackend | LatentBackend = PixelBackend(pipeline, scheduler, class_names)
    else:
        family = _find_adapter(description)(pipeline, description.side)
        family.condition = kept or family.condition
        if isinstance(family.condition, Prompts):
            family.condition.wording = wording
        backend = LatentBackend(family, scheduler, decoder and decoder.to(device), description.pixels)
    if config.compile:
        _compile(backend)
    return backend


def _compile(backend: LatentBackend | PixelBackend) -> None:
    """Compile the parts of a model at their first call with each shape.

    Shapes are static, so an image depends on its batch size only. It depends neither on the batch sizes that a process
    met before nor on their number.
    """
    raise_recompile_limit(MOST_SHAPES)
    parts = [backend.denoiser]
    if isinstance(backend, LatentBackend):
        parts += {id(vae): vae.decoder for vae in (backend.vae, backend.guidance_vae)}.values()
    for part in parts:
        part.compile(dynamic=False)


def _find_adapter(description: Description) -> type[Family]:
    adapter: type[Family] = importlib.import_module(f"{families.__name__}.{description.entry.adapter}").Adapter
    return adapter


def _open_encoder(description: Description, config: SynthesisConfig, device: torch.device) -> Prompts:
    """The pipeline's text encoders, without its denoiser."""
    pipeline = _open(description, config, _dtype(device), [description.denoiser_part])
    if config.diffusion_lora:
        add_lora(pipeline.components, config.diffusion_lora, description)
    pipeline.to(device)
    freeze(*(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)))
    family = _find_adapter(description)(pipeline, description.side, FrozenDict(description.denoiser))
    return Prompts(family.encode, pipeline.tokenizer)


def _open(
    description: Description, config: SynthesisConfig, dtype: torch.dtype, without: list[str]
) -> DiffusionPipeline:
    """The pipeline without some of its parts."""
    source, revision = location.split_revision(description.source)
    try:
        kind = getattr(diffusers, description.entry.opened_as or description.family)
        pipeline = _from_pretrained(kind, source, revision, dtype, [*description.absent, *without])
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError) as error:  # The latter two come of quantised weights.
        raise cannot_open(config.diffusion_model, error) from None
    return pipeline


def _from_pretrained(
    kind: type[DiffusionPipeline], source: str, revision: str | None, dtype: torch.dtype, absent: list[str]
) -> DiffusionPipeline:
    """Open the plain weights or, without these, the weights of the only variant there is, such as `fp16`.

    absent: parts that the pipeline goes without.

    Raises
    ------
    OSError, ValueError: neither can be opened.
    """
    given = {"revision": revision, "use_safetensors": True, "dtype": dtype, **dict.fromkeys(absent)}
    try:
        return kind.from_pretrained(source, **given)
    except (OSError, ValueError):
        variants = _variants(source, revision)
        if len(variants) != 1:
            raise
    return kind.from_pretrained(source, variant=variants.pop(), **given)


def _variants(source: str, revision: str | None) -> set[str]:
    """The variants of the weights in a folder or hub repository.

    For example `fp16`, from the file `unet/diffusion_pytorch_model.fp16.safetensors`.
    """
    return {match[1] for file in _files(source, revision) if (match := re.search(VARIANT, file))}


def _files(source: str, revision: str | None) -> list[str]:
    """The files in a folder or hub repository; if the hub cannot be reached, the files downloaded before."""
    folder = Path(source)
    if not folder.is_dir():
        try:
            return list_repo_files(source, revision=revision)
        except OSError:
            folder = Path(try_to_load_from_cache(source, "model_index.json", revision=revision) or "").parent
    return [str(path) for path in folder.glob("*/*")]


def _open_decoder(name: str, dtype: torch.dtype) -> AutoencoderTiny:
    source, revision = location.split_revision(location.find_decoder(name))
    try:
        return AutoencoderTiny.from_pretrained(source, revision=revision, use_safetensors=True, torch_dtype=dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot open 'guidance-decoder' {name} as a tiny autoencoder: {first_line(error)}") from None


def _dtype(device: torch.device) -> torch.dtype:
    """bfloat16 for the denoiser and the autoencoder on a GPU that supports it, otherwise float32.

    The sampler's state and the moments are float32 on every device.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32
