"""Train several students side by side: on a processor, one process of one thread for each core; else one by one.

Small nets use two cores nearly twice as well as two processes than as two threads of one. The processes share the
tensors of the training sets, so sets that are views of the same images cost their memory once; uploads stay here.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from safetensors.torch import load, save

from common.config import Config
from common.models import architectures
from common.processes import num_processors
from fedlmg_server.distillation.student import make_student, train_model, train_student
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet

Trained = tuple[dict[str, torch.Tensor], list[dict]]
"""A student's weights on the CPU, and its loss history."""


def train_students(run: Run, sets: dict[str, TrainingSet]) -> Iterator[tuple[str, Trained]]:
    """Each set's name and the student trained on it, as they finish."""
    if run.device.type != "cpu" or len(sets) <= 1:
        for name, data in sets.items():
            model, history = train_student(run, data)
            yield name, (_weights(model), history)
        return
    workers, job = min(len(sets), num_processors()), Job.of_run(run)
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: dict[Future[Trained], str] = {pool.submit(job.train, data): name for name, data in sets.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


@dataclass(frozen=True)
class Job:
    """What a process needs of a run to train its student."""

    config: Config
    num_classes: int
    num_updates: int
    start: bytes
    """The student's first weights, as a safetensors file."""

    @classmethod
    def of_run(cls, run: Run) -> "Job":
        start = save({name: tensor.contiguous() for name, tensor in _weights(make_student(run)).items()})
        return cls(run.config, len(run.class_names), run.num_updates, start)

    def train(self, data: TrainingSet) -> Trained:
        config = self.config
        architecture, size = config.distillation.student_architecture, config.training.image_size
        with torch.random.fork_rng(devices=[]):
            model = architectures.build(architecture, self.num_classes, size, config.builders)
        model.load_state_dict(load(self.start))
        history = train_model(model, data, config, self.num_updates)
        return _weights(model), history


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}
