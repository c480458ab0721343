"""Whether a diffusion model and a guidance decoder can be opened, by their configs and file names alone."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from common.config import ConfigError
from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import location
from fedlmg_server.diffusion.description import cannot_open, describe, read_object
from fedlmg_server.diffusion.vocabulary import Vocabulary, open_vocabulary

WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "safety_checker")
"""Parts of a pipeline that have weights."""
TINY = "AutoencoderTiny"
QUANTISED_BY = ("bitsandbytes", "torchao")
"""Libraries of quantised weights that are opened; a part's config calls its method by the library's name."""


def check_pipeline(config: SynthesisConfig) -> Vocabulary:
    """The vocabulary of the `diffusion-model`, whose configs are whole, and make a noise schedule for the `sampler`
    and images of `diffusion-size` pixels.

    Of a folder, also the files of weights are there.

    Raises
    ------
    ConfigError: it cannot be opened, or it is made for classes and names none.
    """
    name, sampler, size = config.diffusion_model, config.sampler, config.diffusion_size
    vocabulary = open_vocabulary(config)
    if vocabulary.names == ():
        raise ConfigError(
            f"{vocabulary.model} is made for classes and names none: give it 'id2label' or class_names.json"
        )
    if name not in location.EMBEDDED:
        _check_files(name, sampler, size)
    elif size:
        describe(name, size)
    return vocabulary


def _check_files(name: str, sampler: str, size: int) -> None:
    from fedlmg_server.diffusion.noise_schedule import make_scheduler  # Diffusers takes seconds to import.

    description = describe(name, size)
    folder = Path(description.source)
    try:
        _check_quantisation(description.denoiser, description.denoiser_part)
        for part in description.parts if folder.is_dir() else ():
            if not (folder / part).is_dir():
                raise ValueError(f"it has no folder '{part}'")
            if part in WITH_WEIGHTS:
                _check_weights(folder / part)
                _check_quantisation(read_object(description.source, f"{part}/config.json"), part)
        make_scheduler(description.scheduler, sampler, description.is_flow)
    except ValueError as error:
        raise cannot_open(name, error) from None


def _check_quantisation(config: dict[str, Any], part: str) -> None:
    said = config.get("quantization_config")
    if said is None:
        return
    method = said.get("quant_method") if isinstance(said, dict) else said
    if method not in QUANTISED_BY:
        known = " or ".join(QUANTISED_BY)
        raise ValueError(f"its {part} must be quantised by {known}, if at all, got {method!r}: take another")
    if not find_spec(method):
        raise ValueError(f"its {part} is quantised by {method}, which is not installed: 'pip install {method}'")
    if method == "bitsandbytes" and not (torch.cuda.is_available() or torch.xpu.is_available()):
        raise ValueError(f"its {part} is quantised by {method}, which needs a GPU here: take plain weights")


def check_decoder(name: str, model: str) -> None:
    """
    Raises
    ------
    ConfigError: the `guidance-decoder` is no tiny autoencoder, or none for the latents of this `diffusion-model`.
    """
    source, description = location.find_decoder(name), describe(model)
    own, tiny = description.autoencoder, description.entry.tiny
    if source in location.TINY_DECODERS.values() and not source.endswith(f"/{tiny}"):
        instead = f"take {tiny}" if tiny else "leave out the key"
        raise ConfigError(f"'guidance-decoder' {name} is not for a {description.family}: {instead}")
    try:
        config = read_object(source, "config.json")
        if (kind := config.get("_class_name")) != TINY:
            raise ValueError(f"its class is {kind}, and must be {TINY}")
        if own is None or "z_dim" in own:
            raise ValueError(f"'{model}' draws pixels or frames of a video: leave out the decoder")
        found, wanted = config.get("latent_channels", 4), own.get("latent_channels", 4)
        if found != wanted:
            raise ValueError(f"it decodes {found} channels, and latents of '{model}' have {wanted}: take its own")
        if Path(source).is_dir():
            _check_weights(Path(source))
    except (ConfigError, OSError, ValueError) as error:
        raise ConfigError(f"cannot open 'guidance-decoder' {name} as a tiny autoencoder: {error}") from None


def _check_weights(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} has no weights in safetensors format")
