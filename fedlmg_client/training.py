"""Local training: train a client's classifier on its images, resume after an interruption, and store the upload."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR

from common.clients.data import ClientData
from common.config.node import PrivacyConfig
from common.config.run import LocalTrainingConfig
from common.datasets.labeled_images import LabeledImages
from common.manifest import SCHEMA, Epoch, Manifest, Preprocessing, Training
from common.models import architectures, feature_statistics, pretrained
from common.models.feature_statistics import FeatureStatistics
from common.names import is_sane_name
from common.storage.tensors import load_training, read_tensors, save_training, write_tensors
from common.upload import Upload, is_whole, weights_digest
from common.vision.augmentation import augment
from common.vision.batches import count_batches, shuffle_batches
from common.vision.metrics import accuracy, predict
from common.vision.preprocessing import PreprocessSpec
from common.vision.schedule import make_scheduler
from fedlmg_client import audit, clustered_statistics, private_training
from fedlmg_client.private_training import Budget
from fedlmg_client.status import Trained, append_event

ADAMW_LEARNING_RATE_FACTOR = 1 / 50
WARMUP_SHARE = 0.05
NO_PRIVACY = PrivacyConfig()


def train(
    data: ClientData,
    architecture: str,
    config: LocalTrainingConfig,
    seed: int,
    client: str,
    cache: Path,
    device: str | torch.device,
    privacy: PrivacyConfig = NO_PRIVACY,
) -> Upload:
    """Train the client's classifier and return its upload; an upload that was trained before is read from `cache`.

    A checkpoint is written after each epoch, so an interrupted training continues.

    Raises
    ------
    ValueError: the architecture is unknown (the message names the nearest known one), initial weights are not
        available, there are fewer than two training images, the server would reject a name, or private training is
        not possible.
    """
    folder = cache / _cache_key(data, architecture, config, privacy, seed)
    if is_whole(folder / "upload"):
        return Upload.load(folder / "upload")
    if len(data.train) < 2:
        raise ValueError(f"training needs at least 2 images, but client '{client}' has {len(data.train)}: add images")
    if bad := [name for name in (client, *data.class_names) if not is_sane_name(name)]:
        raise ValueError(
            f"names of clients and classes must have 1 to 100 printable characters, but one is {bad[0]!r}: rename it"
        )
    preprocess, budget = PreprocessSpec(config.image_size), None
    if privacy.dp_epsilon:
        # A virtual client has no private data, so its secret is the seed: its run must be reproducible.
        secret = private_training.load_or_create_secret(folder) if data.source == "folder" else str(seed)
        budget = Budget.from_config(privacy, config, len(data.train), secret)
    torch.manual_seed(seed)
    builders = {architectures.base_architecture(architecture)}
    model = architectures.build(architecture, len(data.class_names), config.image_size, builders)
    if budget and architectures.has_batch_norm(model):
        architecture, model = architecture + architectures.GROUP_NORM, architectures.with_group_norm(model)
    if config.initialisation:
        taken = pretrained.initialise(model, architectures.base_architecture(architecture), config.initialisation)
        print(f"{client}: {taken}", flush=True)
    model = model.to(device).to(memory_format=torch.channels_last)
    if budget:
        private_training.prepare_model(model, architecture, config.image_size)
    progress = _fit(model, data, preprocess, config, seed, client, folder, torch.device(device), budget)
    upload = _make_upload(model, data, architecture, preprocess, config, client, progress, budget)
    if found := upload.manifest.membership:
        print(f"{client}: {audit.describe_membership(found)}", flush=True)
    upload.save(folder / "upload")
    for name in ("checkpoint.safetensors", "best.safetensors"):
        (folder / name).unlink(missing_ok=True)
    return upload


def _cache_key(
    data: ClientData, architecture: str, config: LocalTrainingConfig, privacy: PrivacyConfig, seed: int
) -> str:
    settings = asdict(config) | asdict(privacy) | {"architectures": architecture, "max_membership_auc": 1.0}
    key = [settings, data.name, data.class_names, data.fingerprint, seed, SCHEMA]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _fit(
    model: torch.nn.Module,
    data: ClientData,
    preprocess: PreprocessSpec,
    config: LocalTrainingConfig,
    seed: int,
    client: str,
    folder: Path,
    device: torch.device,
    budget: Budget | None = None,
) -> dict:
    """Train `model` in place; it ends with its best weights.

    Returns a dict: `best`, the validation accuracy of these weights in [0, 1] or -1; `seconds` of training; `history`,
    one dict an epoch.
    """
    optimizer = _make_optimizer(model, config)
    if budget:
        optimizer = private_training.make_private_optimizer(optimizer, budget)
    images, labels = preprocess.resize(data.train.images).to(device), data.train.labels.to(device)
    best_file, checkpoint = folder / "best.safetensors", folder / "checkpoint.safetensors"
    progress: dict[str, Any] = {"best": -1.0, "seconds": 0.0, "history": []}
    if checkpoint.exists():
        progress = load_training(checkpoint, model, optimizer)
    num_batches = budget.steps_per_epoch if budget else count_batches(len(labels), config.local_batch_size)
    num_updates, done = config.local_epochs * num_batches, len(progress["history"]) * num_batches
    scheduler = make_scheduler(optimizer, num_updates, max(1, round(num_updates * WARMUP_SHARE)), done)
    for epoch in range(len(progress["history"]), config.local_epochs):
        started = time.monotonic()
        loss = _train_epoch(model, optimizer, scheduler, images, labels, preprocess, config, epoch, seed, budget)
        validation = _measure_accuracy(model, preprocess, data.validation)
        # The privacy budget covers the weights only, so the training loss stays on the client.
        reported = None if budget else round(loss, 5)
        progress["history"].append({"epoch": epoch + 1, "train_loss": reported, "validation_accuracy": validation})
        # Without validation images, and in private training, the last weights are kept.
        if validation is None or budget or validation >= progress["best"]:
            progress["best"] = -1.0 if validation is None else validation
            write_tensors(best_file, {name: tensor.clone() for name, tensor in model.state_dict().items()})
        progress["seconds"] += time.monotonic() - started
        save_training(checkpoint, model, optimizer, progress)
        _print_progress(client, config.local_epochs, loss, progress, folder.parent)
    model.load_state_dict(read_tensors(best_file)[0])
    model.eval()
    return progress


def _make_optimizer(model: torch.nn.Module, config: LocalTrainingConfig) -> torch.optim.Optimizer:
    rate = config.local_learning_rate
    if architectures.has_batch_norm(model):
        return torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return torch.optim.AdamW(model.parameters(), rate * ADAMW_LEARNING_RATE_FACTOR, weight_decay=0.05)


def _train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR,
    images: torch.Tensor,  # uint8 (N, 3, S, S)
    labels: torch.Tensor,  # (N,)
    preprocess: PreprocessSpec,
    config: LocalTrainingConfig,
    epoch: int,
    seed: int,
    budget: Budget | None,
) -> float:
    """Train for one epoch and return the mean loss; order, augmentation and dropout depend only on seed and epoch."""
    epoch_seed = seed * 1_000_003 + epoch
    torch.manual_seed(budget.derive_seed(epoch, "noise") if budget else epoch_seed)
    generator = torch.Generator().manual_seed(budget.derive_seed(epoch, "batches") if budget else epoch_seed)
    if budget:
        batches = private_training.poisson_batches(len(labels), budget, generator)
    else:
        batches = shuffle_batches(len(labels), config.local_batch_size, generator)
    model.train()
    losses = []
    for rows in batches:
        inputs = preprocess.normalize(augment(images[rows].float() / 255, generator))
        if budget:
            loss = private_training.take_private_step(model, optimizer, inputs, labels[rows])
        else:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
                loss = F.cross_entropy(model(inputs), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def _measure_accuracy(model: torch.nn.Module, preprocess: PreprocessSpec, data: LabeledImages) -> float | None:
    """Accuracy in [0, 1]; None without images."""
    return accuracy(predict(model, preprocess, data.images), data.labels) if len(data) else None


def _make_upload(
    model: torch.nn.Module,
    data: ClientData,
    architecture: str,
    preprocess: PreprocessSpec,
    config: LocalTrainingConfig,
    client: str,
    progress: dict,
    budget: Budget | None,
) -> Upload:
    moments = {} if budget else _gather_statistics(model, data, preprocess, config)
    test_accuracy = _measure_accuracy(model, preprocess, data.test)
    arrays = {name: _to_wire(tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(arrays)
    found = audit.measure_membership(model, preprocess, data.train, audit.concatenate(data.validation, data.test))
    counts = torch.bincount(data.train.labels, minlength=len(data.class_names)).tolist()
    training = Training(
        num_examples=len(data.train),
        validation_accuracy=progress["best"] if progress["best"] >= 0 else None,
        test_accuracy=test_accuracy,
        test_accuracy_wire=_measure_accuracy(model, preprocess, data.test),
        seconds=round(progress["seconds"], 3),
        history=[Epoch(**entry) for entry in progress["history"]],
    )
    manifest = Manifest(
        schema_version=SCHEMA,
        client=client,
        architecture=architecture,
        class_names=list(data.class_names),
        class_counts=counts,
        preprocessing=Preprocessing(**preprocess.to_json()),
        training=training,
        privacy=budget.to_manifest() if budget else None,
        membership=found,
        data=data.source,
        sha256=weights_digest(arrays),
    )
    return Upload(arrays, moments, manifest)


def _gather_statistics(
    model: torch.nn.Module, data: ClientData, preprocess: PreprocessSpec, config: LocalTrainingConfig
) -> FeatureStatistics:
    device, size, num_classes = next(model.parameters()).device, config.local_batch_size, len(data.class_names)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in zip(data.train.images.split(size), data.train.labels.split(size), strict=True):
            yield preprocess(images.to(device).float() / 255), labels

    if config.statistics == "global":
        return feature_statistics.gather(model, (images for images, _ in batches()))
    if config.num_clusters == 1:
        return feature_statistics.gather_by_class(model, batches(), num_classes)
    return clustered_statistics.gather(model, batches, num_classes, config.num_clusters)


def _to_wire(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to the CPU; floating-point tensors become float16, integer and 0-dim tensors keep their dtype."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.is_floating_point() and tensor.dim() else tensor.clone()


def _print_progress(client: str, num_epochs: int, loss: float, progress: dict, cache: Path) -> None:
    latest = progress["history"][-1]
    left = progress["seconds"] / latest["epoch"] * (num_epochs - latest["epoch"])
    validation = latest["validation_accuracy"]
    print(
        f"{client}: epoch {latest['epoch']}/{num_epochs}, loss {loss:.3f}, "
        f"validation {'not measured' if validation is None else f'{100 * validation:.1f} %'}, {left:.0f} s left",
        flush=True,
    )
    append_event(cache, Trained(epoch=latest["epoch"], epochs=num_epochs, seconds_left=round(left, 1)))
