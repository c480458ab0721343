"""Tensors in safetensors files, and checkpoints of a training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from common.storage.atomic import write_bytes
from common.telling import first_line


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors and string metadata to a safetensors file, in the same way as `write_bytes`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(tensors, metadata))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the metadata that were written with them.

    Raises
    ------
    ValueError: the file is not a complete safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, and cannot be read as one ({error})") from None


def save_training(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]
) -> None:
    """Write a checkpoint: parameters and buffers, the optimiser's moments, and `progress` (a JSON object)."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    write_tensors(path, {name: tensor.clone() for name, tensor in tensors.items()}, {"progress": json.dumps(progress)})


def load_training(path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load a checkpoint of `save_training` into `module` and `optimizer`, in place; returns `progress`.

    None: there is no checkpoint, or it is damaged, which is printed. The training starts again.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path)
        progress: dict[str, Any] = json.loads(metadata["progress"])
    except (ValueError, LookupError) as error:
        print(f"the checkpoint {path} is damaged, so its training starts again ({first_line(error)})", flush=True)
        return None
    module.load_state_dict({name[7:]: tensor for name, tensor in tensors.items() if name.startswith("module.")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".", 2)
            state.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def read_progress(path: Path) -> dict[str, Any]:
    """The `progress` of a checkpoint of `save_training`; empty if the file is no whole one."""
    try:
        return dict(json.loads(read_tensors(path)[1]["progress"]))
    except ValueError:
        return {}
