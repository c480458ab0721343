"""Train several students side by side: on a processor, one process of one thread for each core; else one by one.

Small nets use two cores nearly twice as well as two processes than as two threads of one.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from common.config import Config
from common.processes import num_processors
from common.upload import Upload
from fedlmg_server.distillation import aggregate
from fedlmg_server.distillation.trainer import TrainingSet

Trained = tuple[dict[str, torch.Tensor], list[dict]]
"""A student's weights on the CPU, and its loss history."""


def distil_all(
    config: Config, uploads: list[Upload], jobs: dict[str, TrainingSet], num_classes: int, device: torch.device
) -> Iterator[tuple[str, Trained]]:
    """Each job's name and its trained student, as they finish."""
    if device.type != "cpu" or len(jobs) <= 1:
        for name, data in jobs.items():
            yield name, _distil(config, uploads, data, num_classes, device)
        return
    workers = min(len(jobs), num_processors())
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: dict[Future[Trained], str] = {
            pool.submit(_distil, config, uploads, data, num_classes, device): name for name, data in jobs.items()
        }
        for future in as_completed(futures):
            yield futures[future], future.result()


def _distil(
    config: Config, uploads: list[Upload], data: TrainingSet, num_classes: int, device: torch.device
) -> Trained:
    model, history = aggregate.distil(config, uploads, data, num_classes, device)
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}, history
