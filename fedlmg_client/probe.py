"""Architecture `auto`: choose what this machine can train in time, by free memory and a timed training step (ours)."""

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from common.config import Config
from common.devices import measure_free_memory
from common.models import architectures
from common.storage.atomic import write_json

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


def choose_architecture_once(
    cache: Path, config: Config, num_classes: int, num_images: int, device: torch.device
) -> str:
    """Choose an architecture, and remember the choice: timings vary, but the choice for a task must not."""
    settings = config.training
    task = f"{num_classes} {num_images} {settings.image_size} {settings.local_epochs} {settings.local_batch_size}"
    path = cache / "architecture.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    if task not in chosen:
        chosen[task] = choose_architecture(config, num_classes, num_images, device)
        write_json(path, chosen)
    return chosen[task]


def choose_architecture(config: Config, num_classes: int, num_images: int, device: torch.device) -> str:
    """The first candidate that fits in half of the free memory and trains in a third of the deadline.

    If no candidate does, the last one.
    """
    settings, candidates = config.training, CANDIDATES[config.training.image_size <= SMALL_IMAGES]
    num_steps = settings.local_epochs * -(-num_images // settings.local_batch_size)
    for name in candidates:
        model = architectures.build(name, num_classes, settings.image_size)
        num_weights = sum(parameter.numel() for parameter in model.parameters())
        if num_weights * BYTES_PER_WEIGHT > measure_free_memory(device) / 2:
            continue
        seconds = measure_step_seconds(model.to(device), settings.image_size, settings.local_batch_size, device)
        if seconds * num_steps * EPOCH_OVERHEAD <= config.clients.deadline_seconds * SHARE_OF_DEADLINE:
            return name
    return candidates[-1]


def measure_step_seconds(model: torch.nn.Module, image_size: int, batch_size: int, device: torch.device) -> float:
    """Duration of one training step in seconds; a first step warms up and does not count."""
    images = torch.rand(batch_size, 3, image_size, image_size, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    for _ in range(2):
        started = time.monotonic()
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return time.monotonic() - started
