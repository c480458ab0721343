"""Fine-tuning of a finished model on a client's images, each class as often as every other, with general ones replayed.

Replayed images are learned under the probabilities that the model itself gave them, so that it forgets little.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.config import Config
from common.datasets.labeled_images import LabeledView
from common.start import Start
from common.storage.tensors import load_training, save_training
from common.vision.batches import count_batches, keep_on_device, read_batches
from common.vision.looks import move
from common.vision.metrics import predict
from common.vision.preprocessing import PreprocessSpec
from common.vision.schedule import make_scheduler
from fedlmg_client import fine_tuning, probe
from fedlmg_client.fine_tuning import Replay
from fedlmg_client.steps import Steps

Report = Callable[[int, int, float], None]
"""Gets the epochs done, their number, and the seconds left."""


def make_replay(net: torch.nn.Module, preprocess: PreprocessSpec, start: Start | None) -> Replay | None:
    """The start's general images under the net's own probabilities; None without images."""
    if start is None or not len(start.replay):
        return None
    images, device = preprocess.resize(start.replay.images), next(net.parameters()).device
    return Replay(images.to(device), predict(net, preprocess, images).to(device), start.looks)


def fine_tune(
    net: torch.nn.Module,
    own: LabeledView,
    preprocess: PreprocessSpec,
    replay: Replay | None,
    config: Config,
    checkpoint: Path,
    report: Report,
    client: str,
) -> None:
    """Fine-tune `net` in place for `local-epochs`, or for as many batches as half of a third of the deadline allows.

    own: at least one image, labels in the net's classes; every class is drawn as often as every other.

    Raises
    ------
    ValueError: the weights are not finite in the end.
    """
    settings, device = config.training, next(net.parameters()).device
    images, targets = keep_on_device(own.images, preprocess, device), own.labels.to(device)
    chances = 1 / own.labels.bincount(minlength=1)[own.labels].double()
    optimizer = fine_tuning.make_optimizer(net)
    step = Steps(net, optimizer, client, preprocess.image_size)
    progress = load_training(checkpoint, net, optimizer)
    if progress is None:
        progress = _plan(net, len(own), preprocess, replay, config) | {"done": 0, "seconds": 0.0}
    epochs, num_batches = progress["epochs"], progress["batches"]
    steps = epochs * num_batches
    warm_up, done = max(1, round(steps * fine_tuning.WARMUP_SHARE)), progress["done"] * num_batches
    scheduler = make_scheduler(optimizer, steps, warm_up, done)
    for epoch in range(progress["done"], epochs):
        started = time.monotonic()
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        net.train()
        drawn = torch.multinomial(chances, num_batches * settings.local_batch_size, True, generator=generator)
        batches = drawn.split(settings.local_batch_size)
        for rows, shown in zip(batches, read_batches(images, batches, preprocess, device), strict=True):
            inputs = preprocess.normalize(move(shown, config.general.looks, generator))
            step(*fine_tuning.add_replay(inputs, targets[rows], replay, preprocess, generator))
            scheduler.step()
        progress |= {"done": epoch + 1, "seconds": progress["seconds"] + time.monotonic() - started}
        save_training(checkpoint, net, optimizer, progress)
        report(epoch + 1, epochs, progress["seconds"] / (epoch + 1) * (epochs - epoch - 1))
    if not all(tensor.isfinite().all() for tensor in net.state_dict().values()):
        raise ValueError("its training ended with weights that are not finite")
    net.eval()


def _plan(
    net: torch.nn.Module, num_images: int, preprocess: PreprocessSpec, replay: Replay | None, config: Config
) -> dict[str, Any]:
    """How many epochs of how many batches are taken: as many as asked for, unless this machine is too slow."""
    settings, device = config.training, next(net.parameters()).device
    batches = max(1, count_batches(num_images, settings.local_batch_size))
    size = settings.local_batch_size + (fine_tuning.REPLAY_BATCH if replay else 0)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    seconds = probe.measure_step_seconds(net, preprocess.image_size, size, device)
    net.load_state_dict(state)
    # Two models are made before the client answers, one of them from the general model.
    affordable = max(1, int(probe.most_seconds(config) / 2 / (seconds * probe.EPOCH_OVERHEAD)))
    batches = min(batches, affordable)
    return {"epochs": min(settings.local_epochs, affordable // batches), "batches": batches}
