"""Weights from which a classifier starts: torchvision's ImageNet weights or a state dict in a file."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from common.storage.tensors import read_tensors
from common.telling import ToldError
from common.vision.preprocessing import IMAGENET


def initialise(model: nn.Module, architecture: str, source: str) -> str:
    """Load every tensor of `source` that fits into `model`, in place, except those of its head.

    Returns a sentence that says which tensors were loaded.

    Parameters
    ----------
    source: `imagenet` (torchvision's weights, from its cache, or downloaded, which is told), or a file, `.safetensors`
        or `.pth`.

    Raises
    ------
    ValueError: the source cannot be found or read, or none of its tensors fits.
    """
    weights = _imagenet(architecture) if source == IMAGENET else _read(_file(source))
    own, head = model.state_dict(), head_name(model)
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and tensor.shape == own[name].shape and name.rpartition(".")[0] != head
    }
    if not fitting:
        raise ToldError(
            f"no tensor of '{source}' fits a '{architecture}': give weights of the same architecture",
            "no tensor of its 'initialisation' fits its architecture",
        )
    model.load_state_dict(fitting, strict=False)
    skipped = [name for name in own if name not in fitting]
    shown = ", ".join(skipped[:6]) + (f" and {len(skipped) - 6} more" if len(skipped) > 6 else "")
    return f"initialised {len(fitting)} of {len(own)} tensors from '{source}'; not initialised: {shown}"


def digest(architecture: str, source: str) -> str:
    """A checksum of the weights that `initialise` would load: of the file's content, or of the name of torchvision's.

    Raises
    ------
    ValueError: there is no such file, or torchvision has no such weights.
    """
    if source == IMAGENET:
        return str(_imagenet_weights(architecture).url)  # It ends with the hash of the file.
    with open(_file(source), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_imagenet_weights(architecture: str) -> bool:
    """Whether torchvision offers weights for it; they need not be on this machine."""
    try:
        return bool(_imagenet_weights(architecture))
    except ValueError:
        return False


def head_name(model: nn.Module) -> str:
    """The name of the layer that gives the logits: the last linear layer or convolution.

    Raises
    ------
    ValueError: the net has neither.
    """
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not names:
        raise ValueError("its classifier has no linear layer or convolution that gives its logits")
    return names[-1]


def _imagenet(architecture: str) -> dict[str, torch.Tensor]:
    weights = _imagenet_weights(architecture)
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not kept.exists():
        # Nobody's connection is used for this without a word.
        print(f"'{architecture}' starts from ImageNet weights: {weights.url} is downloaded to {kept}", flush=True)
    try:
        tensors: dict[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return tensors
    except (URLError, OSError, RuntimeError) as error:
        raise ToldError(
            f"the ImageNet weights of '{architecture}' are not in torchvision's cache and cannot be downloaded "
            f"({error}): leave 'initialisation' empty, or give a file",
            "the ImageNet weights that its 'initialisation' asks for are not there and cannot be downloaded",
        ) from None


def _imagenet_weights(architecture: str) -> Any:
    try:
        return torchvision.models.get_model_weights(architecture).DEFAULT
    except (ValueError, AttributeError):
        raise ToldError(
            f"torchvision has no ImageNet weights of '{architecture}': leave 'initialisation' empty, or give a file",
            "torchvision has no ImageNet weights of its architecture, which its 'initialisation' asks for",
        ) from None


def _file(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise ToldError(
            f"'initialisation' must be `imagenet` or a file of weights, and there is no file {path}",
            "its 'initialisation' names a file that is not there",
        )
    return path


def _read(path: Path) -> dict[str, torch.Tensor]:
    broken = "its 'initialisation' names a file that holds no state dict"
    if path.suffix == ".safetensors":
        try:
            return read_tensors(path)[0]
        except ValueError as error:
            raise ToldError(str(error), broken) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many types of error for a broken file.
        raise ToldError(f"{path} must hold a state dict of tensors only ({type(error).__name__})", broken) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}
