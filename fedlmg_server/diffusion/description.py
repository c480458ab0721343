"""What the small JSON files of a pipeline say: read and judged before any weights are opened, without diffusers."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from common.config import ConfigError
from fedlmg_server.diffusion import location

CONDITIONED_ON = {
    "StableDiffusionPipeline": "prompt",
    "LatentConsistencyModelPipeline": "prompt",
    "StableDiffusionXLPipeline": "prompt",
    "DiTPipeline": "labels",
    "DDPMPipeline": "pixels",
    "DDIMPipeline": "pixels",
}
"""The class that `model_index.json` names -> what the model is conditioned on."""
SCHEDULERS = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers whose config describes a variance-preserving noise schedule by its betas alone."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "linspace", "trailing")
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
PAIRS = ([str, str], [type(None), type(None)])
"""Types of what an index gives a part: library and class, or nothing."""


@dataclass(frozen=True)
class Description:
    """One pipeline whose files make sense together."""

    source: str
    """Its folder or hub id, as `location.find_pipeline` returns it."""
    index: dict[str, Any]
    scheduler: dict[str, Any]
    denoiser: dict[str, Any]
    autoencoder: dict[str, Any] | None
    """None: it works on pixels."""

    @property
    def family(self) -> str:
        return self.index["_class_name"]

    @property
    def parts(self) -> list[str]:
        """The parts that its index names and that are not empty."""
        return [name for name, value in self.index.items() if isinstance(value, list) and value[0]]


def describe(name: str) -> Description:
    """The description of a `diffusion-model`.

    Raises
    ------
    ConfigError: there is no such model, its family or its scheduler is not supported, or its files contradict each
        other or what we do with them.
    """
    source = location.find_pipeline(name)
    try:
        return _read(source)
    except (ConfigError, OSError, ValueError) as error:
        raise cannot_open(name, error) from None


def cannot_open(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"cannot open '{name}' as a diffusion pipeline: {first_line(error)}")


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _read(source: str) -> Description:
    index = read_object(source, "model_index.json")
    _check_choice("model_index.json", "its class", index.get("_class_name"), CONDITIONED_ON)
    for part in index:
        if isinstance(index[part], list) and [*map(type, index[part])] not in PAIRS:
            raise ValueError(f"its model_index.json must give '{part}' a library and a class, got {index[part]}")
    denoiser = "unet" if "unet" in index else "transformer"
    is_latent = CONDITIONED_ON[index["_class_name"]] != "pixels"
    needed = ["scheduler", denoiser, *(["vae"] if is_latent else [])]
    for part in needed:
        if not isinstance(index.get(part), list) or not index[part][0]:
            raise ValueError(f"its model_index.json names no '{part}'")
    description = Description(
        source,
        index,
        read_object(source, "scheduler/scheduler_config.json"),
        read_object(source, f"{denoiser}/config.json"),
        read_object(source, "vae/config.json") if is_latent else None,
    )
    _check_scheduler(description)
    _check_denoiser(description, f"{denoiser}/config.json")
    if description.autoencoder is not None:
        _check_autoencoder(description.autoencoder)
    return description


def read_object(source: str, file: str) -> dict[str, Any]:
    """A JSON object of a pipeline.

    Raises
    ------
    ConfigError: there is no such file.
    OSError, ValueError: it cannot be read, or is no JSON object.
    """
    path = location.find_file(source, file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"its {file} is no JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"its {file} must be a JSON object, got {_name_type(content)}")
    return content


def _check_choice(file: str, what: str, value: Any, choices: Collection[str]) -> None:
    if not isinstance(value, str):
        raise ValueError(
            f"{what} must be a text in its {file}, got {_name_type(value)}: use one of {', '.join(choices)}"
        )
    if value not in choices:
        raise ValueError(f"{what} is {value}, and must be one of {', '.join(choices)}")


def _name_type(value: Any) -> str:
    return {type(None): "none", dict: "an object", list: f"the list {value}"}.get(type(value), repr(value))


def _check_scheduler(description: Description) -> None:
    file, config = "scheduler/scheduler_config.json", description.scheduler
    # Diffusers opens the class that the index names, with the settings of whatever class the file was written for.
    for name in (description.index["scheduler"][1], config.get("_class_name", SCHEDULERS[0])):
        _check_choice(file, "its scheduler", name, SCHEDULERS)
    _check_choice(file, "its 'prediction_type'", config.get("prediction_type", PREDICTIONS[0]), PREDICTIONS)
    _check_choice(file, "its 'timestep_spacing'", config.get("timestep_spacing", SPACINGS[0]), SPACINGS)
    for key in ("use_flow_sigmas", "sigma_min", "sigma_max"):
        if config.get(key):
            raise ValueError(f"its {file} sets '{key}', which is not supported: only its betas may say how noise grows")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(f"'timestep_type' must be 'discrete' in its {file}, got {config['timestep_type']!r}")


def _check_denoiser(description: Description, file: str) -> None:
    config, autoencoder = description.denoiser, description.autoencoder
    latent = 3 if autoencoder is None else autoencoder.get("latent_channels", 4)
    size, channels = config.get("sample_size"), config.get("in_channels", latent)
    if not _is_count(size):
        raise ValueError(f"'sample_size' must be a whole number of at least 1 in its {file}, got {_name_type(size)}")
    if channels != latent:
        raise ValueError(
            f"its {file} says 'in_channels' {channels!r}, and must say {latent}: a model that takes more than an "
            "image, such as one for inpainting, is not supported"
        )


def _check_autoencoder(config: dict[str, Any]) -> None:
    file = "vae/config.json"
    _check_choice(file, "its autoencoder", config.get("_class_name", AUTOENCODERS[0]), AUTOENCODERS)
    scale, shift = config.get("scaling_factor", 1.0), config.get("shift_factor") or 0.0
    if not _is_number(scale) or scale == 0 or not _is_number(shift):
        raise ValueError(
            f"'scaling_factor' and 'shift_factor' must be numbers in its {file}, the first not 0, got {scale!r} "
            f"and {shift!r}"
        )
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None and std is None:
        return
    channels = config.get("latent_channels", 4)
    for values in (mean, std):
        if not isinstance(values, list) or len(values) != channels or not all(map(_is_number, values)):
            raise ValueError(
                f"'latents_mean' and 'latents_std' must both hold {channels} numbers in its {file}, got {mean} "
                f"and {std}"
            )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1
