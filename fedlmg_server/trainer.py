"""Train one classifier on labelled images, with or without teachers.

Images that are not small are read in mixed precision where `training_precision` says so. One process trains on one
device; several may train the same classifier, each on its share of every batch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torchvision.transforms.v2 import MixUp

from common.config.run import DistillationConfig
from common.devices import return_large_blocks, training_precision
from common.models import optimizers
from common.storage.images import Images
from common.storage.tensors import load_training, read_progress, save_training
from common.vision.batches import balance_rows, keep_on_device, read_batches
from common.vision.looks import vary
from common.vision.preprocessing import PreprocessSpec
from common.vision.schedule import make_scheduler
from fedlmg_server.readers import Readers

OnEpoch = Callable[[dict[str, float]], None]
ADAMW_LEARNING_RATE_FACTOR = 1 / 100
"""Nets without BatchNorm diverge at the learning rate that others take with SGD (ours)."""
ENTRIES_OF_PART = 20
"""Entries in the history of a training that sees less than an epoch."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True)
class TrainingSet:
    """images: uint8 (N, 3, h, w); labels: int64 (N,), global class indices, or None: learned from the teacher alone;
    teacher: float (N, classes) or None; a row of zeros stands for an image without a teacher; readers: teachers that
    are asked about every view instead."""

    images: Images
    labels: torch.Tensor | None
    teacher: torch.Tensor | None = None
    readers: Readers | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The file from which a training that was killed goes on, at the end of an epoch; it is removed at the end."""

    path: Path
    key: str
    """Of all that the training depends on: what another one left is passed over."""


def train(
    model: torch.nn.Module,
    data: TrainingSet,
    preprocess: PreprocessSpec,
    config: DistillationConfig,
    seed: int,
    num_updates: int,
    on_epoch: OnEpoch = lambda entry: None,
    looks: str = "digits",
    checkpoint: Checkpoint | None = None,
    balanced: bool = False,
    mixing: MixUp | None = None,
    team: Accelerator | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place, end to end, for `num_updates` batches; returns, and tells, `{"epoch", "loss"}` after each
    epoch, or after parts of one where it sees less than an epoch.

    Loss: cross-entropy + KL(teacher || student) T^2 (paper, Eqs. 11-13, in the argument order of the authors' code).
    The number of updates, not of epochs, is given, so that baselines with fewer images train as long. `looks`: profile
    by which the images' look is varied. `balanced`: the classes of `data`, which has labels, are drawn alike where
    their sizes are unlike. `mixing`: mixes images in pairs, and their labels, where there is no teacher. `team`: the
    processes that train this classifier together, all called alike; the first one writes the checkpoint.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    images = keep_on_device(data.images, preprocess, device)
    labels = None if data.labels is None else data.labels.to(device)
    teacher = data.teacher
    if teacher is not None:
        # Targets in float16 are too many to be softened all at once.
        is_soft = teacher.dtype == torch.float32
        teacher = (soften(teacher, config.temperature) if is_soft else teacher).to(device)
    read = data.readers.open(device) if data.readers else None
    optimizer = make_optimizer(model, config.student_learning_rate)
    batch_size, warm_up = min(config.student_batch_size, len(images)), max(1, num_updates // 20)
    per_epoch = max(1, len(images) // batch_size)
    per_entry = updates_per_entry(len(images), config, num_updates)
    rank, size = (team.process_index, team.num_processes) if team else (0, 1)
    # Shares may differ by an image. The team's gradient is the mean of its processes' gradients.
    weight = len(range(rank, batch_size, size)) * size / batch_size
    model.to(memory_format=torch.channels_last).train()
    history: list[dict[str, float]] = []
    update = _resume(checkpoint, model, optimizer, generator, history) if checkpoint else 0
    learner = team.prepare_model(model) if team else model
    scheduler = make_scheduler(optimizer, num_updates, warm_up, update)
    dtype = training_precision(model, preprocess.image_size, device)
    return_large_blocks(model, preprocess.image_size, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    losses: list[torch.Tensor] = []
    saved = time.monotonic()
    while update < num_updates:
        if balanced and labels is not None:
            order = balance_rows(labels, generator)
        else:
            order = torch.randperm(len(images), generator=generator)
        batches = [rows[rank::size] for rows in order.split(batch_size)[: min(per_epoch, num_updates - update)]]
        varying = generator if size == 1 else _generator_of(rank, generator)
        for rows, shown in zip(batches, read_batches(images, batches, preprocess, device), strict=True):
            views = vary(shown, looks, varying)
            asked = None if labels is None else labels[rows]
            if mixing:
                views, asked = mixing(views, asked)
            inputs = preprocess.normalize(views)
            taught = None if teacher is None else teacher[rows]
            if taught is not None and taught.dtype != torch.float32:
                taught = soften(taught.float(), config.temperature)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = learner(inputs)
            if read:
                taught = soften(read(views, rows), config.temperature)
            loss = distillation_loss(logits.float(), asked, taught, config)
            optimizer.zero_grad()
            scaler.scale(loss * weight).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            losses.append(loss.detach())
            update += 1
            if update % per_entry == 0:
                epoch = len(history) + 1 if per_entry == per_epoch else round(update / per_epoch, 3)
                mean = torch.stack(losses).mean() * weight
                mean = team.reduce(mean, "mean") if team else mean
                history.append({"epoch": epoch, "loss": round(mean.item(), 5)})
                losses.clear()
                on_epoch(history[-1])
        if checkpoint and rank == 0 and not losses and time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS:
            _save(checkpoint, model, optimizer, generator, history, update)
            saved = time.monotonic()
    model.eval()
    if checkpoint and rank == 0:
        checkpoint.path.unlink(missing_ok=True)
    return history


def updates_per_entry(num_images: int, config: DistillationConfig, num_updates: int) -> int:
    """After how many updates a training of so many images tells of each entry of its history."""
    per_epoch = max(1, num_images // min(config.student_batch_size, num_images))
    return per_epoch if per_epoch <= num_updates else max(1, num_updates // ENTRIES_OF_PART)


def _generator_of(rank: int, generator: torch.Generator) -> torch.Generator:
    """A process's own random numbers for an epoch. They follow from the common ones, which a checkpoint holds."""
    seed = int(torch.randint(2**31, (), generator=generator))
    return torch.Generator().manual_seed(seed + rank)


def _save(
    checkpoint: Checkpoint,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    history: list[dict[str, float]],
    update: int,
) -> None:
    random = [state.get_state().numpy().tobytes().hex() for state in (generator, torch.default_generator)]
    progress = {"key": checkpoint.key, "update": update, "history": history, "random": random}
    save_training(checkpoint.path, model, optimizer, progress)


def _resume(
    checkpoint: Checkpoint,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    history: list[dict[str, float]],
) -> int:
    """The number of updates that were done before; all else is put into what is given."""
    if not checkpoint.path.exists() or read_progress(checkpoint.path).get("key") != checkpoint.key:
        return 0
    if not (progress := load_training(checkpoint.path, model, optimizer)):
        return 0
    for state, told in zip((generator, torch.default_generator), progress["random"], strict=True):
        state.set_state(torch.frombuffer(bytearray.fromhex(told), dtype=torch.uint8))
    history += progress["history"]
    return int(progress["update"])


def make_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """SGD; for a net without BatchNorm AdamW at a hundredth of the learning rate."""
    return optimizers.make_optimizer(model, learning_rate, learning_rate * ADAMW_LEARNING_RATE_FACTOR)


def distillation_loss(
    logits: torch.Tensor,  # (B, classes)
    labels: torch.Tensor | None,  # (B,), or (B, classes) of mixed images
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
