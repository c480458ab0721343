"""Training of general models, side by side: a process for each accelerator, or for each processor core."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Self

import torch

from common.config.run import DistillationConfig
from common.devices import device_of_process, release_cached_memory
from common.models import architectures, pretrained
from common.processes import num_processors
from common.storage.tensors import read_tensors, write_tensors
from common.upload import to_wire
from common.vision import looks
from common.vision.metrics import above_chance, accuracy, predict
from common.vision.preprocessing import IMAGENET, PreprocessSpec
from fedlmg_server import trainer
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.trainer import TrainingSet

RECIPE = 4
"""Number of the training below: a cached model of another one is not used."""
WELL_READ = 0.8
"""A model that reads a smaller share of held-out general images learns for as long again."""
NEAR_CHANCE = 0.15
"""How far above chance a model must read held-out general images to be offered (0 is chance, 1 is perfect)."""
POLL_SECONDS = 1.0
DIED = "the process that trained it ended, perhaps for want of memory"
"""Why there is no model, in a clause."""
BATCHES = DistillationConfig()
"""Batch size and learning rate of every general model, whatever those of the run's student."""
FROM_IMAGENET = DistillationConfig(student_learning_rate=0.005)
"""The same for one that starts from ImageNet's weights: the rate of the authors' code, which keeps what they know."""

OnUpdates = Callable[[int, int], None]
"""Called with the numbers of updates that were done, and that were added to the plan, since the last call."""


@dataclass(frozen=True)
class GeneralModel:
    architecture: str
    class_names: list[str]
    weights: dict[str, torch.Tensor] = field(repr=False)
    """State dict as it travels: floating point in float16."""
    accuracy: float
    """On `num_held_out` held-out general images, in [0, 1]."""
    num_held_out: int
    num_updates: int = 0
    """Batches that it learned from; 0: not known."""

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
    """Of a cycle of the learning rate; a model that reads few images takes two of them."""
    builders: frozenset[str]
    device: torch.device
    from_imagenet: bool = False
    """Whether it starts from torchvision's ImageNet weights, in place of random ones."""

    def key(self, checksum: str) -> str:
        """A name for everything that the model depends on; `checksum`: of the general images.

        Raises
        ------
        ValueError: no net of that name takes images of that size; a builder may raise other errors.
        """
        parts = [RECIPE, self.architecture, repr(self.build()), self.class_names, self.preprocess.to_json()]
        parts += [looks.describe(self.looks), self.seed, self.num_updates, checksum]
        parts += architectures.hash_source(self.architecture, self.builders).values()
        if self.from_imagenet:
            parts.append(pretrained.digest(architectures.base_architecture(self.architecture), IMAGENET))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def build(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            size = self.preprocess.image_size
            return architectures.build(self.architecture, len(self.class_names), size, self.builders)

    def run(
        self, images: GeneralImages, on_updates: OnUpdates = lambda done, more: None, may_go_on: bool = True
    ) -> GeneralModel:
        """Train the model, and measure it as it will travel. may_go_on: beyond `num_updates`, where that helps."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.build()
            if self.from_imagenet:
                taken = pretrained.initialise(model, architectures.base_architecture(self.architecture), IMAGENET)
                print(f"general model of '{self.architecture}': {taken}", flush=True)
            model = model.to(self.device)
            made = self._train(model, images, self.num_updates, 0, on_updates)
            if may_go_on and made.is_offered and made.num_held_out and made.accuracy < WELL_READ:
                on_updates(0, self.num_updates)
                longer = self._train(model, images, self.num_updates, self.num_updates, on_updates)
                return max(made, longer, key=lambda each: each.accuracy)
        return made

    def _train(
        self, model: torch.nn.Module, images: GeneralImages, num_updates: int, before: int, on_updates: OnUpdates
    ) -> GeneralModel:
        """One cycle more; before: updates of those that went before."""
        settings = FROM_IMAGENET if self.from_imagenet else BATCHES
        per_entry = trainer.updates_per_entry(len(images.train), settings, num_updates)
        trainer.train(
            model,
            TrainingSet(images.train.images, images.train.labels),
            self.preprocess,
            settings,
            self.seed + before,
            num_updates,
            on_epoch=lambda entry: on_updates(per_entry, 0),
            looks=self.looks,
            balanced=True,
            mixing=looks.make_mixing(self.looks, len(self.class_names)),
        )
        weights = {name: to_wire(tensor.clone()) for name, tensor in model.state_dict().items()}
        model.load_state_dict(weights)
        held_out, measured = images.held_out, 0.0
        if len(held_out):
            measured = accuracy(predict(model, self.preprocess, held_out.images), held_out.labels)
        names = list(self.class_names)
        return GeneralModel(self.architecture, names, weights, measured, len(held_out), before + num_updates)


def run_all(jobs: list[Job], images: GeneralImages, on_updates: OnUpdates) -> Iterator[tuple[Job, GeneralModel | str]]:
    """Each job and its model, as they finish; for one that fails, why."""
    workers = num_workers(jobs)
    if workers == 1:
        for job in jobs:
            yield job, _try(job, images, on_updates)
        return
    release_cached_memory()
    context = get_context("spawn")
    counts, told = context.Array("q", 2), (0, 0)
    broken: list[Job] = []
    with _pool(workers, context, counts) as pool:
        running = {pool.submit(_run_in_process, job, images): job for job in jobs}
        while running:
            finished, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            if (now := (counts[0], counts[1])) != told:
                on_updates(now[0] - told[0], now[1] - told[1])
                told = now
            for future in finished:
                job = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    broken.append(job)
                else:
                    yield job, future.result()
    for job in broken:
        # One process that dies takes the others with it, so each job gets a process of its own.
        with _pool(1, context, counts) as pool:
            future = pool.submit(_run_in_process, job, images)
            died = isinstance(future.exception(), BrokenProcessPool)
        yield job, DIED if died else future.result()


def num_workers(jobs: list[Job]) -> int:
    """How many of the jobs run at once: one on each accelerator, or on each processor core."""
    if any(job.device.type == "cpu" for job in jobs):
        return min(len(jobs), num_processors())
    return min(len(jobs), torch.accelerator.device_count())


def _pool(workers: int, context: BaseContext, counts: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, context, initializer=_initialise, initargs=(counts, context.Value("i")))


def _try(job: Job, images: GeneralImages, on_updates: OnUpdates) -> GeneralModel | str:
    try:
        return job.run(images, on_updates)
    except Exception as error:  # A builder of the operator's may raise anything.
        return f"{type(error).__name__}: {error}"


_counts: Any = None
"""In a process of `run_all`: the updates that all have done, and have added to the plan, shared."""
_rank = 0
"""In a process of `run_all`: its number among them."""


def _initialise(counts: Any, started: Any) -> None:
    """counts: `_counts`; started: how many processes there are before this one, shared."""
    global _counts, _rank
    _counts = counts
    with started.get_lock():
        _rank = started.value
        started.value += 1
    torch.set_num_threads(1)


def _run_in_process(job: Job, images: GeneralImages) -> GeneralModel | str:
    """On the accelerator of this process's rank, where the job's device is one."""
    if job.device.type != "cpu":
        job = replace(job, device=device_of_process(_rank))
    return _try(job, images, _note_updates)


def _note_updates(done: int, more: int) -> None:
    with _counts.get_lock():
        _counts[0] += done
        _counts[1] += more
