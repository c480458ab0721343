"""Train one classifier on labelled images, with or without a teacher's probabilities. Not covered: mixed precision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from common.config.run import DistillationConfig
from common.models.architectures import has_batch_norm
from common.vision.looks import vary
from common.vision.preprocessing import PreprocessSpec
from common.vision.schedule import make_scheduler

OnEpoch = Callable[[dict[str, float]], None]
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
ADAMW_LEARNING_RATE_FACTOR, ADAMW_WEIGHT_DECAY = 1 / 100, 0.05
"""Nets without BatchNorm diverge at the learning rate that others take with SGD (ours)."""
ENTRIES_OF_PART = 20
"""Entries in the history of a training that sees less than an epoch."""


@dataclass(frozen=True)
class TrainingSet:
    """images: uint8 (N, 3, h, w); labels: int64 (N,), global class indices, or None: learned from the teacher alone;
    teacher: float (N, classes) or None; a row of zeros stands for an image without a teacher."""

    images: torch.Tensor
    labels: torch.Tensor | None
    teacher: torch.Tensor | None = None


def train(
    model: torch.nn.Module,
    data: TrainingSet,
    preprocess: PreprocessSpec,
    config: DistillationConfig,
    seed: int,
    num_updates: int,
    on_epoch: OnEpoch = lambda entry: None,
    looks: str = "digits",
) -> list[dict[str, float]]:
    """Train `model` in place, end to end, for `num_updates` batches; returns, and tells, `{"epoch", "loss"}` after each
    epoch, or after parts of one where it sees less than an epoch.

    Loss: cross-entropy + KL(teacher || student) T^2 (paper, Eqs. 11-13, in the argument order of the authors' code).
    The number of updates, not of epochs, is given, so that baselines with fewer images train as long. `looks`: profile
    by which the images' look is varied.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    images = preprocess.resize(data.images).to(device)
    labels = None if data.labels is None else data.labels.to(device)
    teacher = None if data.teacher is None else soften(data.teacher, config.temperature).to(device)
    optimizer = make_optimizer(model, config.student_learning_rate)
    batch_size = min(config.student_batch_size, len(images))
    per_epoch, warm_up = max(1, len(images) // batch_size), max(1, num_updates // 20)
    per_entry = per_epoch if per_epoch <= num_updates else max(1, num_updates // ENTRIES_OF_PART)
    scheduler = make_scheduler(optimizer, num_updates, warm_up)
    model.to(memory_format=torch.channels_last).train()
    history: list[dict[str, float]] = []
    losses: list[torch.Tensor] = []
    for update in range(num_updates):
        if update % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        rows = order[(update % per_epoch) * batch_size :][:batch_size]
        inputs = preprocess.normalize(vary(images[rows].float() / 255, looks, generator))
        asked = None if labels is None else labels[rows]
        taught = None if teacher is None else teacher[rows]
        loss = distillation_loss(model(inputs), asked, taught, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())
        if (update + 1) % per_entry == 0:
            epoch = len(history) + 1 if per_entry == per_epoch else round((update + 1) / per_epoch, 3)
            history.append({"epoch": epoch, "loss": round(torch.stack(losses).mean().item(), 5)})
            losses.clear()
            on_epoch(history[-1])
    model.eval()
    return history


def make_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """SGD with momentum; for a net without BatchNorm AdamW at a hundredth of the learning rate."""
    if not has_batch_norm(model):
        rate = learning_rate * ADAMW_LEARNING_RATE_FACTOR
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=ADAMW_WEIGHT_DECAY)
    return torch.optim.SGD(
        model.parameters(), learning_rate, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )


def distillation_loss(
    logits: torch.Tensor,  # (B, classes)
    labels: torch.Tensor | None,  # (B,)
    teacher: torch.Tensor | None,  # (B, classes), softened
    config: DistillationConfig,
) -> torch.Tensor:
    loss = logits.new_zeros(()) if labels is None else F.cross_entropy(logits, labels)
    if teacher is None:
        return loss
    student = (logits / config.temperature).log_softmax(1)
    divergence = F.kl_div(student, teacher, reduction="batchmean") * config.temperature**2
    return loss + divergence


def soften(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities (N, classes) at a temperature; classes at 0 stay at 0, and so do rows of zeros."""
    powered = probabilities ** (1 / temperature)
    total = powered.sum(1, keepdim=True)
    return powered / total.where(total > 0, 1)
