"""LoRA weights for a domain, added to a denoiser and CLIP text encoders by diffusers' loader; safetensors alone."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.configuration_utils import FrozenDict
from diffusers.loaders.lora_base import fuse_text_encoder_lora, set_adapters_for_text_encoder
from diffusers.utils import USE_PEFT_BACKEND

from common.config import ConfigError
from common.telling import first_line
from fedlmg_server.diffusion.description import Description, read_object

NAME = "domain"
"""What diffusers calls the weights inside a part."""
ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
"""Text encoders for which there are LoRA weights."""


def check_lora(setting: str, description: Description) -> None:
    """Put the weights into parts without memory.

    Raises
    ------
    ConfigError: as `add_lora`, or some weights are not finite.
    """
    lora = Lora(setting, description)
    for part in lora.parts:
        with init_empty_weights():
            module = _make(part, description)
        lora.load_into(module, part)
    if not all(bool(weight.isfinite().all()) for weight in lora.weights.values()):
        raise lora.refuse("some of its weights are not finite: train it again")


def add_lora(parts: Mapping[str, Any], setting: str, description: Description) -> None:
    """Add the weights of a `diffusion-lora` to those of the opened parts that they change; beside them, where these are
    quantised.

    parts: name -> module of a pipeline, or None for a part that is not opened.

    Raises
    ------
    ConfigError: there are none, they are no safetensors or made for another model, or PEFT is not installed.
    """
    lora = Lora(setting, description)
    scale = float(setting.rpartition("@")[2])
    for part in lora.parts:
        if (module := parts.get(part)) is None:
            continue
        lora.load_into(module, part)
        is_quantised = getattr(module, "hf_quantizer", None) is not None
        if part != description.denoiser_part:
            if is_quantised:
                set_adapters_for_text_encoder([NAME], module, [scale])
            else:
                fuse_text_encoder_lora(module, scale)
        elif is_quantised:
            module.set_adapters([NAME], [scale])
        else:
            module.fuse_lora(lora_scale=scale)
            module.unload_lora()


def identify(setting: str) -> str:
    """What the prompts depend on: the weights and how strongly they count.

    Raises
    ------
    ConfigError: there is no file of weights.
    """
    with _find_file(setting).open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}@{setting.rpartition('@')[2]}"


class Lora:
    """The weights of a `diffusion-lora`, read for one pipeline."""

    weights: Mapping[str, torch.Tensor]
    """Each named by its part of the pipeline, a dot, and its place there."""

    def __init__(self, setting: str, description: Description):
        """
        Raises
        ------
        ConfigError: the file cannot be read, or changes parts that take no LoRA weights.
        """
        self._setting, self._description = setting, description
        self._kind = getattr(diffusers, description.entry.opened_as or description.family)
        if not hasattr(self._kind, "lora_state_dict"):
            raise self.refuse(f"diffusers adds none to a {description.family}: leave out 'diffusion-lora'")
        if not USE_PEFT_BACKEND:
            raise ConfigError("config key 'diffusion-lora' needs the extra 'lora': install it, or leave out the key")
        file = _find_file(setting)
        try:
            self.weights, *alphas, self._metadata = self._kind.lora_state_dict(
                str(file.parent),
                weight_name=file.name,
                use_safetensors=True,
                unet_config=FrozenDict(description.denoiser),
                return_alphas=True,
                return_lora_metadata=True,
            )
        except Exception as error:  # Of files that it does not know, the library raises what it happens to meet.
            raise self.refuse(first_line(error)) from None
        self._alphas = alphas[0] if alphas else None
        self.parts = sorted({key.split(".")[0] for key in self.weights})
        taken = [description.denoiser_part, *self._find_encoders()]
        if others := [part for part in self.parts if part not in taken]:
            names = ", ".join(others[:3])
            raise self.refuse(f"it changes {names}, and must change {' or '.join(taken)} alone: take one made for it")
        if not self.parts:
            raise self.refuse("the file is empty: take one made for this model")

    def load_into(self, module: Any, part: str) -> None:
        """Load what changes this part into it, at scale 1.

        Raises
        ------
        ConfigError: the weights were made for another model.
        """
        if not hasattr(module, "load_lora_adapter" if part == self._description.denoiser_part else "load_adapter"):
            raise self.refuse(f"diffusers adds none to a {type(module).__name__}: leave out 'diffusion-lora'")
        given = {
            "network_alphas": self._alphas,
            "adapter_name": NAME,
            "metadata": self._metadata,
            "low_cpu_mem_usage": True,
        }
        try:
            if part == self._description.denoiser_part:
                module.load_lora_adapter(self.weights, prefix=part, **given)
            else:
                self._kind.load_lora_into_text_encoder(self.weights, text_encoder=module, prefix=part, **given)
        except RuntimeError:
            raise self.refuse("its weights do not have the shapes of this model's: take one made for it") from None
        except Exception as error:  # As above.
            raise self.refuse(first_line(error)) from None
        found = sum(".lora_" in name for name, _ in module.named_parameters())
        if found != (asked := sum(key.startswith(f"{part}.") for key in self.weights)):
            raise self.refuse(f"only {found} of its {asked} weights belong to this model: take one made for it")

    def refuse(self, why: str) -> ConfigError:
        return _cannot_open(self._setting, why)

    def _find_encoders(self) -> list[str]:
        if not hasattr(self._kind, "load_lora_into_text_encoder"):
            return []
        return [part for part in self._description.text_parts if self._description.index[part][1] in ENCODERS]


def _make(part: str, description: Description) -> Any:
    """A part of a pipeline, with new weights."""
    name = description.index[part][1]
    if part == description.denoiser_part:
        return getattr(diffusers, name).from_config(description.denoiser)
    kind = getattr(transformers, name)
    return kind(kind.config_class.from_dict(read_object(description.source, f"{part}/config.json")))


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
