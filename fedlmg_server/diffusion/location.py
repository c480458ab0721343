"""Where to find a diffusion model, without importing the libraries that open it."""

import re
from pathlib import Path

from common.config import ConfigError
from common.datasets.embedded import registry
from common.storage import installed
from common.telling import first_line

ASSETS = Path("fedlmg_server") / "diffusion" / "assets"
EMBEDDED = {**{name: name for name in registry.EMBEDDED}, "digits-flow": "digits"}
"""Pipeline that ships with FedLMG -> the embedded dataset of its classes."""
HUB_ID = r"[\w.-]+(/[\w.-]+)?(@[^@\s]+)?"
"""Matches a hub id, optionally followed by `@` and a revision."""

TINY_DECODERS = {name: f"madebyollin/{name}" for name in ("taesd", "taesdxl", "taesd3", "taef1")}
"""Short name of a tiny autoencoder -> its hub id."""
NO_TINY_DECODERS = ("taef2", "taesana")
"""Tiny autoencoders that are published, but not in diffusers' format."""


def embedded_folder(name: str) -> Path:
    """The folder of a pipeline that ships with FedLMG, one of `EMBEDDED`.

    Raises
    ------
    ConfigError: the pipeline is not installed.
    """
    try:
        weights = installed.find_installed(ASSETS / name / "unet" / "diffusion_pytorch_model.safetensors")
    except FileNotFoundError as error:
        raise ConfigError(f"{error}, or set the config key 'diffusion-model' to a pipeline folder") from None
    return weights.parents[1]


def find_pipeline(name: str) -> str:
    """The folder of an embedded model or of a diffusers pipeline; any other name is returned as a hub id.

    Raises
    ------
    ConfigError: the folder holds no pipeline, or the name is no hub id.
    """
    source = embedded_folder(name) if name in EMBEDDED else Path(name).expanduser()
    is_folder = bool(name) and source.is_dir()
    if is_folder and not (source / "model_index.json").exists():
        raise ConfigError(f"folder '{source}' is no diffusers pipeline: it has no model_index.json")
    if not is_folder and not re.fullmatch(HUB_ID, name):
        raise ConfigError(f"config key 'diffusion-model' must be an existing folder or a hub id, got '{name}'")
    return str(source) if is_folder else name


def find_decoder(name: str) -> str:
    """The folder or hub id of a `guidance-decoder`; a folder is preferred to a short name.

    Raises
    ------
    ConfigError: it is neither of the two, nor a short name.
    """
    if Path(name).is_dir():
        return name
    if name in NO_TINY_DECODERS:
        raise ConfigError(f"'guidance-decoder' {name} is not published in diffusers' format: leave out the key")
    source = TINY_DECODERS.get(name, name)
    if not re.fullmatch(HUB_ID, source):
        known = ", ".join(TINY_DECODERS)
        raise ConfigError(
            f"config key 'guidance-decoder' must be an existing folder or a hub id, got '{name}'; "
            f"short names are {known}"
        )
    return source


def split_revision(source: str) -> tuple[str, str | None]:
    """What `from_pretrained` opens, and the revision if `source`, returned by `find_pipeline`, is a hub id with one."""
    repository, _, revision = source.partition("@")
    return (repository, revision) if revision and not Path(source).is_dir() else (source, None)


def find_file(source: str, file: str) -> Path:
    """A file of a pipeline, from its folder or from the hub, which may download it.

    Raises
    ------
    ConfigError: there is none.
    """
    repository, revision = split_revision(source)
    if Path(repository).is_dir():
        if not (path := Path(repository) / file).exists():
            raise ConfigError(f"{repository} has no {file}")
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # The hub's library raises what its HTTP library does, and more.
        raise ConfigError(f"'{file}' is neither at hand nor on the hub ({first_line(error)})") from None
