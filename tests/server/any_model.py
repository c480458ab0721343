"""Configs of diffusion models without weights, for tests that draw nothing: what a model says of its classes."""

import json
from collections.abc import Sequence
from pathlib import Path


def draws_anything(folder: Path) -> str:
    """An unconditional pixel model, which takes any class; returns the `diffusion-model`."""
    return _write(folder, {"_class_name": "DDPMPipeline"}, None)


def draws_labels(folder: Path, class_names: Sequence[str]) -> str:
    """A pixel model that knows these classes alone."""
    _write(folder, {"_class_name": "DDIMPipeline"}, len(class_names))
    (folder / "class_names.json").write_text(json.dumps(list(class_names)))
    return str(folder)


def _write(folder: Path, index: dict, num_classes: int | None) -> str:
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text(json.dumps({"num_class_embeds": num_classes}))
    return str(folder)
