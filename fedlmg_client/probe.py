"""What this machine can train in time, by timed steps: architecture `auto`, and a copy of the student (ours)."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.config import Config
from common.devices import measure_free_memory
from common.models import architectures
from common.storage.atomic import write_json
from common.storage.json_files import read_object
from common.upload import WIRE_BYTES
from fedlmg_client.fine_tuning import REPLAY_BATCH
from fedlmg_client.steps import Steps

AUTO = "auto"
SMALL_IMAGES = 64
CANDIDATES = {
    True: ("resnet18", "small_resnet", "small_convnext", "small_mobilenet_v3"),
    False: ("resnet50", "resnet18", "mobilenet_v3_large", "mobilenet_v3_small"),
}
"""Candidates for images of up to 64 pixels (True) and for larger images (False), the most capable first."""
SHARE_OF_DEADLINE = 1 / 3
"""Training may take this share of the server's deadline."""
BYTES_PER_WEIGHT = 24
"""Memory for a weight: weight, gradient, momentum and best weight in float32, and the upload twice in float16."""
EPOCH_OVERHEAD = 1.3
"""Factor on the time of training steps, for validation, checkpoints and the upload."""


@dataclass(frozen=True)
class CopyCost:
    """What a copy of the student's architecture costs a client, beside its own classifier."""

    own_seconds: float
    """Duration of training the client's own classifier."""
    copy_seconds: float
    megabytes: float
    """What the copy adds to the upload, in MB (10**6 bytes)."""


def choose_architecture_once(
    cache: Path, config: Config, num_classes: int, num_images: int, device: torch.device
) -> str:
    """Choose an architecture, and remember the choice: timings vary, but the choice for a task must not.

    A task has the server's deadline and the kind of device.
    """
    task = f"{_describe_task(config, num_classes, num_images, device)} {config.clients.deadline_seconds:g}"
    choose = partial(choose_architecture, config, num_classes, num_images, device)
    return str(_remember(cache / "architecture.json", task, choose))


def estimate_copy_once(
    cache: Path, config: Config, architecture: str, num_classes: int, num_images: int, device: torch.device
) -> CopyCost:
    """Time both trainings, each step of which replays general images, and remember the figures likewise."""
    student, builders = config.distillation.student_architecture, config.builders | {architecture}

    def estimate() -> dict[str, float]:
        models = [
            architectures.build(name, num_classes, config.training.image_size, builders)
            for name in (architecture, student)
        ]
        own, copy = (estimate_seconds(model, config, num_images, REPLAY_BATCH, device) for model in models)
        return asdict(CopyCost(own, copy, _count_weights(models[1]) * WIRE_BYTES / 1e6))

    task = f"{architecture} {student} {_describe_task(config, num_classes, num_images, device)}"
    return CopyCost(**_remember(cache / "copy-cost.json", task, estimate))


def choose_architecture(config: Config, num_classes: int, num_images: int, device: torch.device) -> str:
    """The first candidate that fits in half of the free memory and trains in a third of the deadline.

    If no candidate does, the last one.
    """
    settings, candidates = config.training, CANDIDATES[config.training.image_size <= SMALL_IMAGES]
    for name in candidates:
        model = architectures.build(name, num_classes, settings.image_size)
        if _count_weights(model) * BYTES_PER_WEIGHT > measure_free_memory(device) / 2:
            continue
        if estimate_seconds(model, config, num_images, 0, device) <= most_seconds(config):
            return name
    return candidates[-1]


def most_seconds(config: Config) -> float:
    """The longest that a training may take before an answer, in seconds."""
    return config.clients.deadline_seconds * SHARE_OF_DEADLINE


def estimate_seconds(
    model: torch.nn.Module, config: Config, num_images: int, num_replayed: int, device: torch.device
) -> float:
    """Duration of `local-epochs` over the client's images, with `num_replayed` general images in each batch."""
    settings = config.training
    num_steps = settings.local_epochs * -(-num_images // settings.local_batch_size)
    batch_size = settings.local_batch_size + num_replayed
    return measure_step_seconds(model.to(device), settings.image_size, batch_size, device) * num_steps * EPOCH_OVERHEAD


def _count_weights(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _describe_task(config: Config, num_classes: int, num_images: int, device: torch.device) -> str:
    settings = config.training
    images = f"{num_classes} {num_images} {settings.image_size}"
    return f"{images} {settings.local_epochs} {settings.local_batch_size} {device.type}"


def _remember(path: Path, task: str, compute: Callable[[], Any]) -> Any:
    """The JSON value that `compute` gave for this task at the first call.

    Raises
    ------
    ValueError: the file was damaged since.
    """
    known = read_object(path, "remove it, and this machine is timed again") if path.exists() else {}
    if task not in known:
        known[task] = compute()
        write_json(path, known)
    return known[task]


def measure_step_seconds(model: torch.nn.Module, image_size: int, batch_size: int, device: torch.device) -> float:
    """Duration of one training step in seconds; a first step warms up and does not count."""
    images = torch.rand(batch_size, 3, image_size, image_size, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    step = Steps(model, torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9), "this machine", image_size)
    for _ in range(2):
        started = time.monotonic()
        step(images, labels).item()
    return time.monotonic() - started
