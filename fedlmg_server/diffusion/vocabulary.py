"""Which classes a diffusion model can draw, by its configs and its tokenizer alone: no weights are opened.

A model knows a closed list of classes, or it takes any text and may read two names alike, or it takes any class, for
the classifier's guidance alone chooses it.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common.config import ConfigError
from common.config.synthesis import SynthesisConfig
from common.datasets.embedded import registry
from common.telling import first_line
from fedlmg_server.diffusion import location
from fedlmg_server.diffusion.description import Description, describe
from fedlmg_server.diffusion.wording import Wording

CLASS_NAMES = "class_names.json"
"""File of a pixel model's classes, in the order of its labels."""

Tokenize = Callable[[str], tuple[int, ...]]


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
    """What it reads of a prompt; None: it knows its classes by `names`, or not at all."""
    wording: Wording = field(default_factory=Wording)

    def knows(self, class_name: str) -> bool:
        return self.names is None or class_name in self.names

    def read(self, class_name: str) -> set[object]:
        """Values of which two classes share one if the model cannot tell them apart."""
        return {class_name} if self.tokenize is None else set(map(self.tokenize, self.wording.prompts(class_name)))


def open_vocabulary(config: SynthesisConfig) -> Vocabulary:
    """The vocabulary of the `diffusion-model`.

    Raises
    ------
    ConfigError: there is no such model, its family is not supported, its configs cannot be read, or it takes no text
        and is given prompts.
    """
    name, wording = config.diffusion_model, Wording.of(config)
    is_embedded, model = name in location.EMBEDDED, f"the diffusion model '{name}'"
    description = None if is_embedded else describe(name)
    kind = "" if description is None else description.entry.conditioned_on
    if description and kind == "prompt":
        return Vocabulary(model, tokenize=_open_tokenizer(name, description), wording=wording)
    if wording != Wording():
        raise ConfigError(f"{model} takes no prompts: remove 'prompt', 'class-prompts' and 'negative-prompt'")
    if description is None:
        names = registry.find_dataset(location.EMBEDDED[name]).class_names
        return Vocabulary(f"the embedded diffusion model '{name}'", tuple(names))
    if kind == "labels":
        # As diffusers reads them: a label may have several names between commas.
        labels = (str(text).split(",") for text in (description.index.get("id2label") or {}).values())
        return Vocabulary(model, tuple(part.strip() for parts in labels for part in parts))
    if description.denoiser.get("num_class_embeds") is None:
        return Vocabulary(model)
    return Vocabulary(model, tuple(map(str, read_class_names(description.source))))


def read_class_names(source: str) -> list[str]:
    """The classes of a pixel model, from `class_names.json` in its folder; none without this file."""
    path = Path(source) / CLASS_NAMES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _open_tokenizer(name: str, description: Description) -> Tokenize:
    import transformers

    repository, revision = location.split_revision(description.source)
    library, kind = description.index.get("tokenizer") or ["", ""]
    try:
        if library != "transformers":
            raise ValueError(f"its tokenizer must be one of transformers, got {library or 'none'}")
        opened = getattr(transformers, kind).from_pretrained(repository, subfolder="tokenizer", revision=revision)
    except Exception as error:  # Of a broken file, the library raises what it happens to meet.
        raise ConfigError(f"cannot open the tokenizer of '{name}': {first_line(error)}") from None
    return lambda prompt: read_tokens(opened, prompt)


def find_alike(vocabulary: Vocabulary, class_names: Iterable[str]) -> list[list[str]]:
    """Groups of classes, two or more in each, that the model cannot tell apart."""
    groups: dict[object, list[str]] = {}
    for name in class_names:
        for read in vocabulary.read(name):
            groups.setdefault(read, []).append(name)
    alike = {tuple(group): None for group in groups.values() if len(group) > 1}
    return list(map(list, alike))
