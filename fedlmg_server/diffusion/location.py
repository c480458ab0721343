"""Where a diffusion model lies, without importing what opens it."""

from importlib import metadata
from pathlib import Path

from common.config import ConfigError

EMBEDDED = Path("fedlmg_server") / "diffusion" / "assets" / "digits"


def embedded_folder() -> Path:
    """The pipeline that ships with FedLMG.

    A Flower bundle carries no weights, so this looks beside this file, in the installed distribution, and in the
    checkout an editable install points to.
    """
    roots = [Path(__file__).parents[2]]
    try:
        distribution = metadata.distribution("fedlmg")
        roots.append(Path(str(distribution.locate_file(""))))
        if origin := distribution.read_text("direct_url.json"):
            roots.append(Path(origin.split('"file://', 1)[-1].split('"', 1)[0]))
    except metadata.PackageNotFoundError:
        pass
    for root in roots:
        if (root / EMBEDDED / "unet" / "diffusion_pytorch_model.safetensors").exists():
            return root / EMBEDDED
    raise ConfigError(
        f"the embedded diffusion model is not in {' or '.join(map(str, roots))}: install fedlmg from its checkout or "
        "wheel, or set the config key 'diffusion-model' to a pipeline folder"
    )


def find(name: str) -> str:
    """What `from_pretrained` opens for `digits` (embedded), a diffusers folder, or a hub id.

    Raises
    ------
    ConfigError: a folder that holds no pipeline.
    """
    source = embedded_folder() if name == "digits" else Path(name).expanduser()
    if source.is_dir() and not (source / "model_index.json").exists():
        raise ConfigError(f"'{source}' is no diffusers pipeline: it has no model_index.json")
    return str(source) if source.is_dir() else name
