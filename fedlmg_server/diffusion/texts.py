"""Prompts encoded once: the process that needs one first keeps its states in a file, and no other loads an encoder."""

import hashlib
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from common.config import ConfigError
from common.storage.tensors import read_tensors, write_tensors
from fedlmg_server.diffusion.conditioning import Arguments, Prompts
from fedlmg_server.diffusion.description import Description
from fedlmg_server.diffusion.wording import Wording


@dataclass(frozen=True)
class Texts:
    """Where a run keeps its prompts, and the classes that it is known to ask for."""

    folder: Path
    class_names: Collection[str]


class KeptPrompts(Prompts):
    """Text prompts as conditioning, read from files; for those that are missing, the text encoders are opened, once for
    all of them, and freed again. A file's name is a hash of the prompt, so it names no class."""

    def __init__(
        self,
        texts: Texts,
        description: Description,
        open_encoder: Callable[[], Prompts],
        device: torch.device,
        wording: Wording,
        added: str = "",
    ):
        """open_encoder: opens the model's text encoders. added: names what is added to their weights."""
        self._open_encoder, self._device, self.wording = open_encoder, device, wording
        self._kept: dict[str, Arguments] = {}
        depends_on = [description.source, description.index, description.side, *filter(None, [added])]
        said = json.dumps(depends_on, sort_keys=True)
        self._folder = texts.folder / hashlib.sha256(said.encode()).hexdigest()[:16]
        with suppress(ConfigError):  # Of two that read alike, one may never be asked for.
            self._load(
                [wording.negative, *(each for name in sorted(texts.class_names) for each in wording.prompts(name))]
            )

    def encode(self, prompt: str) -> Arguments:
        """The arguments of one prompt, one row.

        Raises
        ------
        ConfigError: the text encoder cannot tell it from another one.
        """
        if prompt not in self._kept:
            self._load([prompt])
        return self._kept[prompt]

    def _load(self, prompts: list[str]) -> None:
        files = {prompt: self._folder / f"{_digest(prompt)}.safetensors" for prompt in prompts}
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / ".lock"):
            if missing := [prompt for prompt, file in files.items() if not file.exists()]:
                encoder = self._open_encoder()
                for prompt in (*self._kept, *prompts):
                    encoder.check(prompt)
                for prompt in missing:
                    write_tensors(files[prompt], _flatten(encoder.encode(prompt)))
                del encoder
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
        for prompt, file in files.items():
            self._kept[prompt] = _unflatten(read_tensors(file)[0], self._device)


def _digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _flatten(arguments: Arguments, before: str = "") -> dict[str, torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}
    for key, value in arguments.items():
        flat |= _flatten(value, f"{before}{key}/") if isinstance(value, dict) else {before + key: value}
    return flat


def _unflatten(flat: dict[str, torch.Tensor], device: torch.device) -> Arguments:
    arguments: Arguments = {}
    for name in sorted(flat):
        *outer, key = name.split("/")
        place = arguments
        for step in outer:
            place = place.setdefault(step, {})
        # How many tokens a prompt has is asked for on the CPU.
        place[key] = flat[name] if key == "lengths" else flat[name].to(device)
    return arguments
