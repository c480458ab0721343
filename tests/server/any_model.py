"""Configs of diffusion models without weights, for tests that draw nothing: what a model says of its classes."""

import json
from collections.abc import Sequence
from pathlib import Path


def draws_anything(folder: Path) -> str:
    """An unconditional pixel model, which takes any class; returns the `diffusion-model`."""
    return _write(folder, "DDPMPipeline", None)


def draws_labels(folder: Path, class_names: Sequence[str]) -> str:
    """A pixel model that knows these classes alone."""
    _write(folder, "DDIMPipeline", len(class_names))
    (folder / "class_names.json").write_text(json.dumps(list(class_names)))
    return str(folder)


def _write(folder: Path, family: str, num_classes: int | None) -> str:
    for part, kind, content in (
        ("scheduler/scheduler_config.json", "DDIMScheduler", {}),
        ("unet/config.json", "UNet2DModel", {"num_class_embeds": num_classes, "sample_size": 16}),
    ):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(json.dumps({"_class_name": kind, **content}))
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": family, **parts}))
    return str(folder)
