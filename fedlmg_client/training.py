"""Local training: train a client's classifier on its images, resume after an interruption, and store the upload."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from common.clients.data import ClientData
from common.config.fields import fields_of
from common.config.node import PrivacyConfig
from common.config.run import LocalTrainingConfig
from common.datasets.readers.contents import LEAST_IMAGES
from common.manifest import SCHEMA
from common.models import architectures, pretrained
from common.models.optimizers import make_local_optimizer
from common.names import is_sane_name
from common.start import Start
from common.storage.images import ImageView
from common.storage.tensors import load_training, read_tensors, save_training, write_tensors
from common.telling import ToldError
from common.upload import Upload, is_whole
from common.vision.batches import balance_batches, count_batches, keep_on_device, read_batches
from common.vision.looks import describe, move
from common.vision.preprocessing import PreprocessSpec
from common.vision.schedule import make_scheduler
from fedlmg_client import audit, fine_tuning, finished, packing, private_training
from fedlmg_client.fine_tuning import Replay
from fedlmg_client.private_training import Budget
from fedlmg_client.secret_numbers import load_or_create_secret
from fedlmg_client.status import Trained, append_event
from fedlmg_client.steps import Steps

RECIPE = 2
"""Number of the training below: what was trained by another one is trained anew."""
SECRET = "noise.key"
"""The file of a private training's secret, beside its checkpoint."""
NO_PRIVACY = PrivacyConfig()


def train(
    data: ClientData,
    architecture: str,
    config: LocalTrainingConfig,
    seed: int,
    cache: Path,
    device: str | torch.device,
    privacy: PrivacyConfig = NO_PRIVACY,
    start: Start | None = None,
    looks: str = "digits",
) -> Upload:
    """Train the client's classifier and return its upload; an upload that was trained before is read from `cache`.

    A checkpoint is written after each epoch, so an interrupted training continues.

    start: has the data's classes; if it has a general model of this architecture, training starts from that.
    looks: profile by which images are mirrored and turned (see `common/vision/looks.py`).

    Raises
    ------
    ValueError: the architecture is unknown (the message names the nearest known one), initial weights are not
        available, there are fewer than two training images, the server would reject a name, private training is not
        possible, or an upload that was trained before is damaged.
    """
    start = start if start and architecture in start.models else None
    folder = cache / cache_key(data, architecture, config, privacy, seed, start, looks)
    if is_whole(folder / "upload"):
        remove_checkpoints(folder)
        with finished.tell_damage(folder / "upload"):
            upload = Upload.load(folder / "upload")
        # The newest upload is the one that was sent last.
        (folder / "upload" / "manifest.json").touch()
        return upload
    check_trainable(data)
    preprocess = start.preprocess if start else PreprocessSpec.of(config.image_size, config.initialisation)
    budget = None
    if privacy.dp_epsilon:
        # A virtual client has no private data, so its secret is the seed: its run must be reproducible.
        is_real = data.source == "folder"
        secret = load_or_create_secret(folder / SECRET) if is_real else str(seed).encode()
        budget = Budget.from_config(privacy, config, len(data.train), secret, folder.name)
    architecture, model = _build(data, architecture, config, seed, start, is_private=budget is not None)
    model = model.to(device).to(memory_format=torch.channels_last)
    if budget:
        private_training.prepare_model(model, architecture, config.image_size)
    progress = fit(model, data, preprocess, config, seed, folder, torch.device(device), budget, start, looks)
    upload = packing.pack(model, data, architecture, preprocess, config, progress, budget)
    if start:
        upload = replace(upload, manifest=upload.manifest.model_copy(update={"start": start.digest(architecture)}))
    if found := upload.manifest.membership:
        print(f"{data.name}: {audit.describe_membership(found)}", flush=True)
    upload.save(folder / "upload")
    remove_checkpoints(folder)
    return upload


def _build(
    data: ClientData, architecture: str, config: LocalTrainingConfig, seed: int, start: Start | None, is_private: bool
) -> tuple[str, torch.nn.Module]:
    """The net that is trained, and its architecture: for private training from scratch one without BatchNorm."""
    torch.manual_seed(seed)
    builders = {architectures.base_architecture(architecture)}
    if start:
        return architecture, start.build(architecture, builders)
    model = architectures.build(architecture, len(data.class_names), config.image_size, builders)
    if is_private and architectures.has_batch_norm(model):
        architecture, model = architecture + architectures.GROUP_NORM, architectures.with_group_norm(model)
    if config.initialisation:
        taken = pretrained.initialise(model, architectures.base_architecture(architecture), config.initialisation)
        print(f"{data.name}: {taken}", flush=True)
    return architecture, model


def check_trainable(data: ClientData) -> None:
    """
    Raises
    ------
    ValueError: there are fewer than two training images, or the server would reject a name.
    """
    if len(data.train) < LEAST_IMAGES:
        raise ToldError(
            f"training needs at least {LEAST_IMAGES} images, but client '{data.name}' has {len(data.train)}: add some",
            f"training needs at least {LEAST_IMAGES} images, but it has {len(data.train)}",
        )
    if bad := [name for name in (data.name, *data.class_names) if not is_sane_name(name)]:
        raise ToldError(
            f"names of clients and classes must have 1 to 100 printable characters, but one is {bad[0]!r}: rename it",
            f"names of clients and classes must have 1 to 100 printable characters, but {len(bad)} of its names do not",
        )


def remove_checkpoints(folder: Path) -> None:
    """Free the space of a training that has ended, and forget the secret of its noise."""
    for name in ("checkpoint.safetensors", "best.safetensors", SECRET):
        (folder / name).unlink(missing_ok=True)


def cache_key(
    data: ClientData,
    architecture: str,
    config: LocalTrainingConfig,
    privacy: PrivacyConfig,
    seed: int,
    start: Start | None,
    looks: str,
) -> str:
    """The folder of one training in the client's cache: its name changes with everything that changes the result.

    Raises
    ------
    ValueError: the architecture cannot be built, or there are no such initial weights.
    """
    base = architectures.base_architecture(architecture)
    initial = "" if start or not config.initialisation else pretrained.digest(base, config.initialisation)
    # A node's settings are more than those of privacy, and say for example where decoded images lie.
    settings = asdict(config) | {name: getattr(privacy, name) for name in fields_of(PrivacyConfig)}
    settings |= {"architectures": architecture, "max_membership_auc": 1.0, "initialisation": initial}
    key = [RECIPE, settings, architectures.hash_source(base, {base}), data.name, data.class_names, data.fingerprint]
    key += [seed, SCHEMA, describe(looks)]
    if start:
        key += [start.digest(architecture), fine_tuning.digest_replay(start)]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def fit(
    model: torch.nn.Module,
    data: ClientData,
    preprocess: PreprocessSpec,
    config: LocalTrainingConfig,
    seed: int,
    folder: Path,
    device: torch.device,
    budget: Budget | None = None,
    start: Start | None = None,
    looks: str = "digits",
    name: str = "",
) -> dict:
    """Train `model` in place; it ends with its best weights.

    start: where the model started, if anywhere; its general images are replayed. name: what is trained, if it is not
    the client's own classifier.

    Returns a dict: `best`, the validation accuracy of these weights in [0, 1] or -1; `seconds` of training; `history`,
    one dict an epoch.
    """
    # Private training keeps its recipe and replays nothing; only its weights come from the start.
    tuned = start if not budget else None
    rate = config.local_learning_rate
    optimizer = fine_tuning.make_optimizer(model) if tuned else make_local_optimizer(model, rate)
    replay = Replay.of_start(tuned, device) if tuned else None
    if budget:
        optimizer = private_training.make_private_optimizer(optimizer, budget)
    images, labels = keep_on_device(data.train.images, preprocess, device), data.train.labels.to(device)
    best_file, checkpoint = folder / "best.safetensors", folder / "checkpoint.safetensors"
    progress: dict[str, Any] = {"best": -1.0, "seconds": 0.0, "history": []}
    progress = load_training(checkpoint, model, optimizer) or progress
    num_batches = budget.steps_per_epoch if budget else count_batches(len(labels), config.local_batch_size)
    num_updates, done = config.local_epochs * num_batches, len(progress["history"]) * num_batches
    scheduler = make_scheduler(optimizer, num_updates, max(1, round(num_updates * fine_tuning.WARMUP_SHARE)), done)
    step = Steps(model, optimizer, data.name, preprocess.image_size)
    for epoch in range(len(progress["history"]), config.local_epochs):
        started = time.monotonic()
        loss = _train_epoch(step, scheduler, images, labels, preprocess, config, epoch, seed, budget, replay, looks)
        validation = packing.measure_accuracy(model, preprocess, data.validation)
        # The privacy budget covers the weights only, so the training loss stays on the client.
        reported = None if budget else round(loss, 5)
        progress["history"].append({"epoch": epoch + 1, "train_loss": reported, "validation_accuracy": validation})
        # Without validation images, and in private training, the last weights are kept.
        if validation is None or budget or validation >= progress["best"]:
            progress["best"] = -1.0 if validation is None else validation
            write_tensors(best_file, {name: tensor.clone() for name, tensor in model.state_dict().items()})
        progress["seconds"] += time.monotonic() - started
        save_training(checkpoint, model, optimizer, progress)
        _print_progress(data.name, config.local_epochs, loss, progress, folder.parent, name)
    model.load_state_dict(read_tensors(best_file)[0])
    model.eval()
    return progress


def _train_epoch(
    step: Steps,
    scheduler: LambdaLR,
    images: ImageView,
    labels: torch.Tensor,  # (N,)
    preprocess: PreprocessSpec,
    config: LocalTrainingConfig,
    epoch: int,
    seed: int,
    budget: Budget | None,
    replay: Replay | None,
    looks: str,
) -> float:
    """Train for one epoch and return the mean loss; order, augmentation and dropout depend only on seed and epoch.

    Classes of unlike sizes are drawn alike (ours). In private training every image is drawn with the same chance, and
    order and noise depend on its secret instead.
    """
    epoch_seed = seed * 1_000_003 + epoch
    torch.manual_seed(epoch_seed)
    generator = torch.Generator().manual_seed(epoch_seed)
    if budget:
        noise = budget.draw(epoch, "noise")
        batches = private_training.poisson_batches(len(labels), budget, budget.draw(epoch, "batches"))
        private_training.set_training_mode(step.model)
    else:
        batches = balance_batches(labels, config.local_batch_size, generator)
        step.model.train()
    losses = []
    for rows, shown in zip(batches, read_batches(images, batches, preprocess, labels.device), strict=True):
        inputs = preprocess.normalize(move(shown, looks, generator))
        if budget:
            loss = private_training.take_private_step(step.model, step.optimizer, inputs, labels[rows], noise)
        else:
            loss = step(*fine_tuning.add_replay(inputs, labels[rows], replay, preprocess, generator))
        scheduler.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def _print_progress(client: str, num_epochs: int, loss: float, progress: dict, cache: Path, name: str) -> None:
    latest = progress["history"][-1]
    left = progress["seconds"] / latest["epoch"] * (num_epochs - latest["epoch"])
    validation = latest["validation_accuracy"]
    print(
        f"{client}: {name and f'{name}, '}epoch {latest['epoch']}/{num_epochs}, loss {loss:.3f}, "
        f"validation {'not measured' if validation is None else f'{100 * validation:.1f} %'}, {left:.0f} s left",
        flush=True,
    )
    append_event(cache, Trained(name=name, epoch=latest["epoch"], epochs=num_epochs, seconds_left=round(left, 1)))
