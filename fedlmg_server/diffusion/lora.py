"""LoRA weights for a domain: added to a denoiser by diffusers' own loader, from safetensors alone."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.utils import USE_PEFT_BACKEND

from common.config import ConfigError
from common.telling import first_line
from fedlmg_server.diffusion.description import Description

NAME = "domain"
"""What diffusers calls the weights inside the denoiser."""


def check_lora(setting: str, description: Description) -> None:
    """Put the weights into a denoiser without memory.

    Raises
    ------
    ConfigError: as `add_lora`, or some weights are not finite.
    """
    with init_empty_weights():
        denoiser = getattr(diffusers, description.index[description.denoiser_part][1]).from_config(description.denoiser)
    weights = _load(denoiser, setting, description)
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise _cannot_open(setting, "some of its weights are not finite: train it again")


def add_lora(denoiser: Any, setting: str, description: Description) -> None:
    """Add the weights of a `diffusion-lora` to those of the denoiser; beside them, where these are quantised.

    Raises
    ------
    ConfigError: there are none, they are no safetensors or made for another model, or PEFT is not installed.
    """
    _load(denoiser, setting, description)
    scale = float(setting.rpartition("@")[2])
    if getattr(denoiser, "hf_quantizer", None) is not None:
        denoiser.set_adapters([NAME], [scale])
        return
    denoiser.fuse_lora(lora_scale=scale)
    denoiser.unload_lora()


def _load(denoiser: Any, setting: str, description: Description) -> dict[str, torch.Tensor]:
    kind = getattr(diffusers, description.entry.opened_as or description.family)
    if not hasattr(kind, "lora_state_dict") or not hasattr(denoiser, "load_lora_adapter"):
        raise _cannot_open(setting, f"diffusers adds none to a {description.family}: leave out 'diffusion-lora'")
    if not USE_PEFT_BACKEND:
        raise ConfigError("config key 'diffusion-lora' needs the extra 'lora': install it, or leave out the key")
    file, part = _find_file(setting), f"{description.denoiser_part}."
    try:
        weights, *alphas, metadata = kind.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            unet_config=getattr(denoiser, "config", None),
            return_alphas=True,
            return_lora_metadata=True,
        )
        if others := {key.split(".")[0] for key in weights if not key.startswith(part)}:
            names = ", ".join(sorted(others)[:3])
            raise ValueError(f"it changes {names}, and must change the {part[:-1]} alone: take one made for it")
        denoiser.load_lora_adapter(
            weights,
            prefix=description.denoiser_part,
            adapter_name=NAME,
            network_alphas=alphas[0] if alphas else None,
            metadata=metadata,
            low_cpu_mem_usage=True,
        )
    except RuntimeError:
        raise _cannot_open(
            setting, "its weights do not have the shapes of this model's: take one made for it"
        ) from None
    except Exception as error:  # Of keys that it does not know, the library raises what it happens to meet.
        raise _cannot_open(setting, first_line(error)) from None
    found = sum(".lora_" in name for name, _ in denoiser.named_parameters())
    if found != len(weights) or not weights:
        raise _cannot_open(
            setting, f"only {found} of its {len(weights)} weights belong to this model: take one made for it"
        )
    return weights


def _find_file(setting: str) -> Path:
    folder = Path(setting.rpartition("@")[0]).expanduser()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not folder.is_dir():
        raise ConfigError(f"config key 'diffusion-lora' must name an existing folder, got '{folder}'")
    if len(files) != 1:
        raise _cannot_open(setting, f"the folder must hold one file in safetensors format, and holds {len(files)}")
    return files[0]


def _cannot_open(setting: str, why: str) -> ConfigError:
    return ConfigError(f"cannot open 'diffusion-lora' {setting.rpartition('@')[0]} as LoRA weights: {why}")
