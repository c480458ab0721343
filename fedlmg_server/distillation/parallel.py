"""Train several students side by side: on a processor, one process of one thread for each core; else one by one.

Small nets use two cores nearly twice as well as two processes than as two threads of one.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from common.processes import num_processors
from fedlmg_server.distillation.student import train_student
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet

Trained = tuple[dict[str, torch.Tensor], list[dict]]
"""A student's weights on the CPU, and its loss history."""


def train_students(run: Run, sets: dict[str, TrainingSet]) -> Iterator[tuple[str, Trained]]:
    """Each set's name and the student trained on it, as they finish."""
    if run.device.type != "cpu" or len(sets) <= 1:
        for name, data in sets.items():
            yield name, _train(run, data)
        return
    workers = min(len(sets), num_processors())
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: dict[Future[Trained], str] = {pool.submit(_train, run, data): name for name, data in sets.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _train(run: Run, data: TrainingSet) -> Trained:
    model, history = train_student(run, data)
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}, history
