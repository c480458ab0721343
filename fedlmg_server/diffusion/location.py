"""Where a diffusion model lies, without importing what opens it."""

from pathlib import Path

from common import installed
from common.config import ConfigError

ASSETS = Path("fedlmg_server") / "diffusion" / "assets"
EMBEDDED = ("digits", "emoji")


def embedded_folder(name: str) -> Path:
    """A pipeline that ships with FedLMG, one of `EMBEDDED`.

    Raises
    ------
    ConfigError: it is not installed.
    """
    try:
        weights = installed.find(ASSETS / name / "unet" / "diffusion_pytorch_model.safetensors")
    except FileNotFoundError as error:
        raise ConfigError(f"{error}, or set the config key 'diffusion-model' to a pipeline folder") from None
    return weights.parents[1]


def find(name: str) -> str:
    """What `from_pretrained` opens for an embedded model, a diffusers folder, or a hub id.

    Raises
    ------
    ConfigError: a folder that holds no pipeline.
    """
    source = embedded_folder(name) if name in EMBEDDED else Path(name).expanduser()
    if source.is_dir() and not (source / "model_index.json").exists():
        raise ConfigError(f"'{source}' is no diffusers pipeline: it has no model_index.json")
    return str(source) if source.is_dir() else name
