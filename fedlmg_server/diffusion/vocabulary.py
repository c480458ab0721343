"""Which classes a diffusion model can draw, by its configs and its tokenizer alone: no weights are opened.

A model knows a closed list of classes, or it takes any text and may read two names alike, or it takes any class, for
the classifier's guidance alone chooses it.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.config import ConfigError
from common.datasets.embedded import registry
from fedlmg_server.diffusion import location

PROMPT = "an image of {}"
"""The prompt for a class (paper, section 3; the authors' code)."""
CONDITIONED_ON = {
    "StableDiffusionPipeline": "prompt",
    "LatentConsistencyModelPipeline": "prompt",
    "StableDiffusionXLPipeline": "prompt",
    "DiTPipeline": "labels",
    "DDPMPipeline": "pixels",
    "DDIMPipeline": "pixels",
}
"""The class that `model_index.json` names -> what the model is conditioned on."""
CLASS_NAMES = "class_names.json"
"""File of a pixel model's classes, in the order of its labels."""

Tokenize = Callable[[str], tuple[int, ...]]


def make_prompt(class_name: str) -> str:
    return PROMPT.format(class_name.lower())


def read_tokens(tokenizer: Callable, prompt: str) -> tuple[int, ...]:
    """What a text model reads of a prompt: the tokens, as many as it takes."""
    return tuple(tokenizer(prompt, truncation=True).input_ids)


@dataclass(frozen=True)
class Vocabulary:
    """The classes that one diffusion model can draw."""

    model: str
    """What the model is called in sentences."""
    names: tuple[str, ...] | None = None
    """All classes that it knows; None: it takes any name."""
    tokenize: Tokenize | None = None
    """What it reads of a prompt; None: it reads none."""

    def knows(self, class_name: str) -> bool:
        return self.names is None or class_name in self.names

    def read(self, class_name: str) -> object:
        """A value that is equal for two classes that the model cannot tell apart."""
        return class_name if self.tokenize is None else self.tokenize(make_prompt(class_name))


def open_vocabulary(name: str) -> Vocabulary:
    """The vocabulary of a `diffusion-model`.

    Raises
    ------
    ConfigError: there is no such model, its family is not supported, or its configs cannot be read.
    """
    if name in location.EMBEDDED:
        return Vocabulary(f"the embedded diffusion model '{name}'", tuple(registry.find_dataset(name).class_names))
    return _open(name, location.find_pipeline(name))


@lru_cache
def _open(name: str, source: str) -> Vocabulary:
    index, model = _read_json(name, source, "model_index.json"), f"the diffusion model '{name}'"
    if (family := index.get("_class_name")) not in CONDITIONED_ON:
        supported = ", ".join(CONDITIONED_ON)
        raise ConfigError(
            f"cannot open '{name}' as a diffusion pipeline: its class is {family}, and must be one of {supported}"
        )
    kind = CONDITIONED_ON[family]
    if kind == "prompt":
        return Vocabulary(model, tokenize=_open_tokenizer(name, source, index))
    if kind == "labels":
        # As diffusers reads them: a label may have several names between commas.
        labels = (str(text).split(",") for text in (index.get("id2label") or {}).values())
        return Vocabulary(model, tuple(part.strip() for parts in labels for part in parts))
    if _read_json(name, source, "unet/config.json").get("num_class_embeds") is None:
        return Vocabulary(model)
    names = _read_json(name, source, CLASS_NAMES) if _is_there(source, CLASS_NAMES) else []
    return Vocabulary(model, tuple(map(str, names)))


def _is_there(source: str, file: str) -> bool:
    return (Path(source) / file).exists()


def find_file(source: str, file: str) -> Path:
    """A file of a pipeline, from its folder or from the hub, which may download it.

    Raises
    ------
    ConfigError: there is none.
    """
    repository, revision = location.split_revision(source)
    if Path(repository).is_dir():
        if not _is_there(repository, file):
            raise ConfigError(f"{repository} has no {file}")
        return Path(repository) / file
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # The hub's library raises what its HTTP library does, and more.
        raise ConfigError(f"'{file}' is neither at hand nor on the hub ({_first_line(error)})") from None


def _read_json(name: str, source: str, file: str) -> Any:
    try:
        return json.loads(find_file(source, file).read_text(encoding="utf-8"))
    except (ConfigError, OSError, ValueError) as error:
        raise ConfigError(f"cannot open '{name}' as a diffusion pipeline: {_first_line(error)}") from None


def _open_tokenizer(name: str, source: str, index: dict[str, Any]) -> Tokenize:
    import transformers

    repository, revision = location.split_revision(source)
    library, kind = (index.get("tokenizer") or ["", ""])[:2]
    try:
        if library != "transformers":
            raise ValueError(f"its tokenizer must be one of transformers, got {library or 'none'}")
        opened = getattr(transformers, kind).from_pretrained(repository, subfolder="tokenizer", revision=revision)
    except Exception as error:  # Of a broken file, the library raises what it happens to meet.
        raise ConfigError(f"cannot open the tokenizer of '{name}': {_first_line(error)}") from None
    return lambda prompt: read_tokens(opened, prompt)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def find_alike(vocabulary: Vocabulary, class_names: Iterable[str]) -> list[list[str]]:
    """Groups of classes, two or more in each, that the model cannot tell apart."""
    groups: dict[object, list[str]] = {}
    for name in class_names:
        groups.setdefault(vocabulary.read(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
