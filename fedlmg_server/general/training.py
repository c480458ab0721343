"""Training of general models, side by side: on a processor one process of one thread for each core, else one by one."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import torch

from common.config.run import DistillationConfig
from common.models import architectures
from common.processes import num_processors
from common.storage.tensors import read_tensors, write_tensors
from common.upload import to_wire
from common.vision import looks
from common.vision.metrics import above_chance, accuracy, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import trainer
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.trainer import TrainingSet

RECIPE = 2
"""Number of the training below: a cached model of another one is not used."""
NEAR_CHANCE = 0.15
"""How far above chance a model must read held-out general images to be offered (0 is chance, 1 is perfect)."""
POLL_SECONDS = 1.0
BATCHES = DistillationConfig()
"""Batch size and learning rate of every general model, whatever those of the run's student."""

OnUpdates = Callable[[int], None]
"""Called with the number of updates done since the last call."""


@dataclass(frozen=True)
class GeneralModel:
    architecture: str
    class_names: list[str]
    weights: dict[str, torch.Tensor] = field(repr=False)
    """State dict as it travels: floating point in float16."""
    accuracy: float
    """On `num_held_out` held-out general images, in [0, 1]."""
    num_held_out: int

    @property
    def is_offered(self) -> bool:
        """Whether it reads general images clearly better than chance, so that a client should start from it."""
        if not self.num_held_out:
            return True
        return above_chance(self.accuracy, len(self.class_names), self.num_held_out) >= NEAR_CHANCE

    def write(self, path: Path) -> None:
        said = {key: value for key, value in self.__dict__.items() if key != "weights"}
        write_tensors(path, self.weights, {"model": json.dumps(said)})

    @classmethod
    def read(cls, path: Path) -> Self:
        weights, metadata = read_tensors(path)
        return cls(weights=weights, **json.loads(metadata["model"]))


@dataclass(frozen=True)
class Job:
    """The training of one general model."""

    architecture: str
    class_names: tuple[str, ...]
    preprocess: PreprocessSpec
    looks: str
    seed: int
    num_updates: int
    builders: frozenset[str]
    device: torch.device

    def key(self, checksum: str) -> str:
        """A name for everything that the model depends on; `checksum`: of the general images.

        Raises
        ------
        ValueError: no net of that name takes images of that size; a builder may raise other errors.
        """
        parts = [RECIPE, self.architecture, repr(self.build()), self.class_names, self.preprocess.to_json()]
        parts += [looks.describe(self.looks), self.seed, self.num_updates, checksum]
        parts += architectures.hash_source(self.architecture, self.builders).values()
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def build(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            size = self.preprocess.image_size
            return architectures.build(self.architecture, len(self.class_names), size, self.builders)

    def run(self, images: GeneralImages, on_updates: OnUpdates = lambda updates: None) -> GeneralModel:
        """Train the model, and measure it as it will travel."""
        data = TrainingSet(images.train.images, images.train.labels)
        per_epoch = max(1, len(images.train) // BATCHES.student_batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.build().to(self.device)
            trainer.train(
                *(model, data, self.preprocess, BATCHES, self.seed, self.num_updates),
                on_epoch=lambda entry: on_updates(per_epoch),
                looks=self.looks,
                balanced=True,
            )
        weights = {name: to_wire(tensor) for name, tensor in model.state_dict().items()}
        model.load_state_dict(weights)
        held_out, measured = images.held_out, 0.0
        if len(held_out):
            measured = accuracy(predict(model, self.preprocess, held_out.images), held_out.labels)
        return GeneralModel(self.architecture, list(self.class_names), weights, measured, len(held_out))


def run_all(jobs: list[Job], images: GeneralImages, on_updates: OnUpdates) -> Iterator[tuple[Job, GeneralModel | str]]:
    """Each job and its model, as they finish; for one that fails, why."""
    workers = min(len(jobs), num_processors())
    if workers == 1 or any(job.device.type != "cpu" for job in jobs):
        for job in jobs:
            yield job, _try(job, images, on_updates)
        return
    context = get_context("spawn")
    done, told = context.Value("q", 0), 0
    with ProcessPoolExecutor(workers, context, initializer=_initialise, initargs=(done,)) as pool:
        running = {pool.submit(_run_in_process, job, images): job for job in jobs}
        while running:
            finished, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            if (now := done.value) > told:
                on_updates(now - told)
                told = now
            for future in finished:
                yield running.pop(future), future.result()


def _try(job: Job, images: GeneralImages, on_updates: OnUpdates) -> GeneralModel | str:
    try:
        return job.run(images, on_updates)
    except Exception as error:  # A builder of the operator's may raise anything.
        return f"{type(error).__name__}: {error}"


_done: Any = None
"""In a process of `run_all`: the number of updates done by all, shared."""


def _initialise(done: Any) -> None:
    global _done
    _done = done
    torch.set_num_threads(1)


def _run_in_process(job: Job, images: GeneralImages) -> GeneralModel | str:
    return _try(job, images, _note_updates)


def _note_updates(updates: int) -> None:
    with _done.get_lock():
        _done.value += updates
