"""Whether a diffusion model and a guidance decoder can be opened, by their configs and file names alone."""

import json
import re
from pathlib import Path

from common.config import ConfigError
from fedlmg_server.diffusion import location
from fedlmg_server.diffusion.vocabulary import Vocabulary, find_file, open_vocabulary

WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "safety_checker")
"""Parts of a pipeline that have weights."""
TINY = "AutoencoderTiny"


def check_pipeline(name: str) -> Vocabulary:
    """The vocabulary of a `diffusion-model` whose configs are whole; of a folder, also the files of weights are there.

    Raises
    ------
    ConfigError: it cannot be opened, or it is made for classes and names none.
    """
    vocabulary, folder = open_vocabulary(name), Path(location.find_pipeline(name))
    if vocabulary.names == ():
        raise ConfigError(
            f"{vocabulary.model} is made for classes and names none: give it 'id2label' or class_names.json"
        )
    if folder.is_dir():
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        parts = {part: value for part, value in index.items() if isinstance(value, list) and value[0]}
        for part in parts:
            if not (folder / part).is_dir():
                raise ConfigError(f"cannot open '{name}' as a diffusion pipeline: it has no folder '{part}'")
            if part in WITH_WEIGHTS:
                _check_weights(folder / part, f"cannot open '{name}' as a diffusion pipeline")
    return vocabulary


def check_decoder(source: str) -> None:
    """
    Raises
    ------
    ConfigError: the `guidance-decoder` is no tiny autoencoder.
    """
    is_folder = Path(source).is_dir()
    if not is_folder and not re.fullmatch(location.HUB_ID, source):
        raise ConfigError(f"config key 'guidance-decoder' must be an existing folder or a hub id, got '{source}'")
    fault = f"cannot open 'guidance-decoder' {source} as a tiny autoencoder"
    try:
        kind = json.loads(find_file(source, "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{fault}: {error}") from None
    if kind != TINY:
        raise ConfigError(f"{fault}: its class is {kind}, and must be {TINY}")
    if is_folder:
        _check_weights(Path(source), fault)


def _check_weights(folder: Path, fault: str) -> None:
    if not (folder / "config.json").exists():
        raise ConfigError(f"{fault}: {folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"{fault}: {folder} has no weights in safetensors format")
