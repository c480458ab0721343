"""Conditioning of a denoiser: from class names to its keyword arguments.

Every result has 2 B rows: B rows without a class, for classifier-free guidance, then B rows with it. Results are cached
by class.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from accelerate.utils import concatenate

from common.config import ConfigError
from fedlmg_server.diffusion.vocabulary import read_tokens
from fedlmg_server.diffusion.wording import Wording

Arguments = dict
"""Keyword arguments of the denoiser: tensors (rows, ...) or dictionaries of tensors."""


class Conditioning(Protocol):
    def __call__(self, class_names: list[str], seeds: Sequence[int] = ()) -> Arguments:
        """The arguments for 2 B rows, from B class names and the seeds of the B images, by which each takes one of the
        prompts of its class; without seeds the first."""


class Prompts:
    """Text prompts as conditioning.

    `encode` turns one prompt into arguments of one row. `tokenizer` is its first step.

    Raises
    ------
    ConfigError: the text encoder cannot tell two class names apart.
    """

    wording = Wording()

    def __init__(self, encode: Callable[[str], Arguments], tokenizer: Callable):
        self._encoder, self._tokenizer = encode, tokenizer
        self._encoded: dict[str, Arguments] = {}
        self._read: dict[tuple[int, ...], str] = {}

    def __call__(self, class_names: list[str], seeds: Sequence[int] = ()) -> Arguments:
        prompts = [self.wording.negative for _ in class_names]
        prompts += map(self.wording.prompt, class_names, seeds or [0] * len(class_names))
        return concatenate(_pad([self.encode(prompt) for prompt in prompts]))

    @torch.no_grad()
    def encode(self, prompt: str) -> Arguments:
        """The arguments of one prompt, one row."""
        if prompt not in self._encoded:
            self.check(prompt)
            self._encoded[prompt] = self._encoder(prompt)
        return self._encoded[prompt]

    def check(self, prompt: str) -> None:
        """
        Raises
        ------
        ConfigError: the text encoder cannot tell it from one that it was given before.
        """
        tokens = read_tokens(self._tokenizer, prompt)
        if (other := self._read.setdefault(tokens, prompt)) != prompt:
            raise ConfigError(
                f"the diffusion model cannot tell '{prompt}' from '{other}', whose first {len(tokens)} tokens are "
                "equal: give one of the classes another prompt ('class-prompts') or name ('class-aliases')"
            )


def _pad(rows: list[Arguments]) -> list[Arguments]:
    """The same rows, with zeros behind the tokens of the shorter prompts; a mask or a length beside them tells."""
    longest = {
        key: max(row[key].shape[1] for row in rows)
        for key, value in rows[0].items()
        if isinstance(value, torch.Tensor) and value.dim() > 1
    }
    return [row | {key: _pad_one(row[key], size) for key, size in longest.items()} for row in rows]


def _pad_one(value: torch.Tensor, size: int) -> torch.Tensor:
    missing = size - value.shape[1]
    return F.pad(value, (0, 0) * (value.dim() - 2) + (0, missing)) if missing else value


def rows_from(arguments: Arguments, first: int) -> Arguments:
    """The same arguments without the rows before `first`."""
    return {
        key: rows_from(value, first) if isinstance(value, dict) else value[first:] for key, value in arguments.items()
    }


def label_ids(class_names: list[str], vocabulary: dict[str, int]) -> list[int]:
    """The model's label for each of these classes.

    Raises
    ------
    ConfigError: the model does not know a class; the message gives the nearest one.
    """
    for name in class_names:
        if name not in vocabulary:
            nearest = difflib.get_close_matches(name, vocabulary, n=1, cutoff=0)
            known = f"its nearest is '{nearest[0]}'" if nearest else "it names no classes"
            raise ConfigError(f"the diffusion model has no class '{name}'; {known}: rename the class ('class-aliases')")
    return [vocabulary[name] for name in class_names]
