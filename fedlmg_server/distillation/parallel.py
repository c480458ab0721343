"""Train several students side by side: on a processor, one process of one thread for each core; else one by one.

Small nets use two cores nearly twice as well as two processes than as two threads of one. The processes share the
tensors of the training sets, so sets that are views of the same images cost their memory once.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from common.processes import num_processors
from fedlmg_server.distillation.job import Job, Trained, weights_of
from fedlmg_server.distillation.student import make_student, train_student
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet


def train_students(run: Run, sets: dict[str, TrainingSet]) -> Iterator[tuple[str, Trained]]:
    """Each set's name and the student trained on it, as they finish."""
    if run.device.type != "cpu" or len(sets) <= 1:
        for name, data in sets.items():
            model, history = train_student(run, data)
            yield name, (weights_of(model), history)
        return
    workers, job = min(len(sets), num_processors()), Job.of(run, make_student(run))
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: dict[Future[Trained], str] = {pool.submit(job.train, data): name for name, data in sets.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
