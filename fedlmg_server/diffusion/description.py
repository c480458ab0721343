"""What the small JSON files of a pipeline say: read and judged before any weights are opened, without diffusers."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from common.config import ConfigError
from common.telling import first_line
from fedlmg_server.diffusion import location
from fedlmg_server.diffusion.families import FAMILIES, Entry

BY_BETAS = (
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
"""Schedulers whose config describes a variance-preserving noise schedule by its betas alone, or, with
`use_flow_sigmas`, flow matching."""
BY_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
"""Schedulers of flow matching."""
SCHEDULERS = (*BY_BETAS, *BY_FLOW)
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "linspace", "trailing")
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
    side: int
    """Of the images that the run asks for, in latents or, of a pixel model, in pixels."""

    @property
    def pixels(self) -> int:
        """On a side of an image."""
        return (
            self.side if self.autoencoder is None else self.side * _pixels_of_latent(self.autoencoder) * self.entry.fold
        )

    @property
    def family(self) -> str:
        return self.index["_class_name"]

    @property
    def entry(self) -> Entry:
        return FAMILIES[self.family]

    @property
    def denoiser_part(self) -> str:
        """What its index calls the denoiser."""
        return _denoiser_part(self.index)

    @property
    def is_flow(self) -> bool:
        """Whether it is trained by flow matching: a solver's name does not tell."""
        return self.index["scheduler"][1] in BY_FLOW or bool(self.scheduler.get("use_flow_sigmas"))

    @property
    def absent(self) -> list[str]:
        """The parts that its index names and that are empty, such as the T5 of a small Stable Diffusion 3."""
        return [name for name, value in self.index.items() if value == [None, None]]

    @property
    def text_parts(self) -> list[str]:
        """The parts that read prompts."""
        return [part for part in self.parts if part.startswith(("text_encoder", "tokenizer"))]

    @property
    def parts(self) -> list[str]:
        """The parts that its index names and that are not empty."""
        return [name for name, value in self.index.items() if isinstance(value, list) and value[0]]


def describe(name: str, size: int = 0) -> Description:
    """The description of a `diffusion-model`.

    size: of the images, in pixels; 0: the model's own.

    Raises
    ------
    ConfigError: there is no such model, its family or its scheduler is not supported, its files contradict each other
        or what we do with them, or it cannot draw this size.
    """
    source = location.find_pipeline(name)
    try:
        return _read(source, size)
    except (ConfigError, OSError, ValueError) as error:
        raise cannot_open(name, error) from None


def cannot_open(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"cannot open '{name}' as a diffusion pipeline: {first_line(error)}")


def _read(source: str, size: int) -> Description:
    index = read_object(source, "model_index.json")
    _check_choice("model_index.json", "its class", index.get("_class_name"), FAMILIES)
    for part in index:
        if isinstance(index[part], list) and [*map(type, index[part])] not in PAIRS:
            raise ValueError(f"its model_index.json must give '{part}' a library and a class, got {index[part]}")
    entry, denoiser = FAMILIES[index["_class_name"]], _denoiser_part(index)
    is_latent = entry.conditioned_on != "pixels"
    for part in ["scheduler", denoiser, *(["vae"] if is_latent else [])]:
        if not isinstance(index.get(part), list) or not index[part][0]:
            raise ValueError(f"its model_index.json names no '{part}'")
    scheduler = read_object(source, "scheduler/scheduler_config.json")
    _check_scheduler(index, scheduler)
    autoencoder = read_object(source, "vae/config.json") if is_latent else None
    if autoencoder is not None:
        _check_autoencoder(autoencoder, entry)
    described = read_object(source, f"{denoiser}/config.json")
    _check_channels(described, autoencoder, entry, f"{denoiser}/config.json")
    side = _find_side(index, described, autoencoder, size, f"{denoiser}/config.json")
    return Description(source, index, scheduler, described, autoencoder, side)


def _denoiser_part(index: dict[str, Any]) -> str:
    return "unet" if "unet" in index else "transformer"


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


def _check_scheduler(index: dict[str, Any], config: dict[str, Any]) -> None:
    file, opened_as = "scheduler/scheduler_config.json", index["scheduler"][1]
    # Diffusers opens the class that the index names, with the settings of whatever class the file was written for.
    for name in (opened_as, config.get("_class_name", opened_as)):
        _check_choice(file, "its scheduler", name, SCHEDULERS)
    if (opened_as in BY_FLOW) != (config.get("_class_name", opened_as) in BY_FLOW):
        raise ValueError(f"its model_index.json says {opened_as}, but its {file} is one of a {config['_class_name']}")
    if opened_as in BY_FLOW:
        _check_flow(file, config)
        return
    is_flow = bool(config.get("use_flow_sigmas"))
    predictions = ("flow_prediction",) if is_flow else PREDICTIONS
    _check_choice(file, "its 'prediction_type'", config.get("prediction_type", PREDICTIONS[0]), predictions)
    _check_choice(file, "its 'timestep_spacing'", config.get("timestep_spacing", SPACINGS[0]), SPACINGS)
    for key in ("sigma_min", "sigma_max"):
        if config.get(key):
            raise ValueError(f"its {file} sets '{key}', which is not supported: its betas must say how noise grows")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(f"'timestep_type' must be 'discrete' in its {file}, got {config['timestep_type']!r}")


def _check_flow(file: str, config: dict[str, Any]) -> None:
    shift = config.get("shift", 1.0)
    if not _is_number(shift) or shift <= 0:
        raise ValueError(f"'shift' must be a number above 0 in its {file}, got {shift!r}")
    if config.get("invert_sigmas"):
        raise ValueError(f"its {file} sets 'invert_sigmas', which is not supported: noise must fall from 1 to 0")


def _check_channels(config: dict[str, Any], autoencoder: dict[str, Any] | None, entry: Entry, file: str) -> None:
    latent = 3
    if autoencoder is not None:
        latent = (autoencoder.get("latent_channels") or autoencoder.get("z_dim", 4)) * (entry.fold * entry.packed) ** 2
    if (channels := config.get("in_channels", latent)) != latent:
        raise ValueError(
            f"its {file} says 'in_channels' {channels!r}, and must say {latent}: a model that takes more than an "
            "image, such as one for inpainting, is not supported"
        )


def _find_side(
    index: dict[str, Any], config: dict[str, Any], autoencoder: dict[str, Any] | None, size: int, file: str
) -> int:
    """In latents, or in pixels for a pixel model."""
    entry = FAMILIES[index["_class_name"]]
    pixels = 1 if autoencoder is None else _pixels_of_latent(autoencoder) * entry.fold
    own: Any = config.get("sample_size") or entry.side
    if _is_count(index.get("default_sample_size")):
        own = index["default_sample_size"] // pixels
    if not _is_count(own):
        raise ValueError(f"'sample_size' must be a whole number of at least 1 in its {file}, got {_name_type(own)}")
    if not size or size == own * pixels:
        return int(own)
    if not entry.any_size:
        raise ValueError(f"it draws images of {own * pixels} pixels alone: leave out 'diffusion-size'")
    if size % (multiple := pixels * entry.patch):
        nearest = max(1, round(size / multiple)) * multiple
        raise ValueError(f"'diffusion-size' must be a multiple of {multiple} for it, got {size}: try {nearest}")
    return size // pixels


def _pixels_of_latent(autoencoder: dict[str, Any]) -> int:
    by_key = {"temperal_downsample": 0, "encoder_block_out_channels": 1, "block_out_channels": 1}
    key = next((key for key in by_key if autoencoder.get(key)), "block_out_channels")
    levels = autoencoder.get(key, [64])
    if not isinstance(levels, list) or not levels:
        raise ValueError(f"'{key}' must be a list of one level at least in its vae/config.json, got {levels!r}")
    return 2 ** (len(levels) - by_key[key])


def _check_autoencoder(config: dict[str, Any], entry: Entry) -> None:
    file = "vae/config.json"
    _check_choice(file, "its autoencoder", config.get("_class_name", entry.autoencoders[0]), entry.autoencoders)
    scale, shift = config.get("scaling_factor", 1.0), config.get("shift_factor") or 0.0
    if not _is_number(scale) or scale == 0 or not _is_number(shift):
        raise ValueError(
            f"'scaling_factor' and 'shift_factor' must be numbers in its {file}, the first not 0, got {scale!r} "
            f"and {shift!r}"
        )
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None and std is None:
        return
    channels = config.get("latent_channels") or config.get("z_dim", 4)
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
