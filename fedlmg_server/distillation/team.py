"""Train one student by several processes, each with an accelerator of its own and a share of every batch.

Hugging Face's `accelerate` joins the processes; PyTorch's DistributedDataParallel averages their gradients. BatchNorm
normalises each share by its own moments; its running moments are those of the first process.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.multiprocessing.spawn import ProcessException, spawn

from common.config import Config
from common.devices import SMALL, release_cached_memory
from common.models.architectures import is_builder
from common.processes import end_with_parent, num_processors
from common.storage.tensors import read_tensors, write_tensors
from common.telling import ToldError, first_line
from fedlmg_server.distillation.job import Job, Trained
from fedlmg_server.trainer import Checkpoint, OnEpoch, TrainingSet

LEAST_SHARE = 8
"""Images of a batch for each process: fewer say too little of BatchNorm's moments."""
POLL_SECONDS = 0.5
STUDENT = "student.safetensors"


def num_processes(config: Config, device: torch.device, num_images: int) -> int:
    """One for each accelerator; one in all on a processor, and for images so small that the exchange costs more."""
    if device.type == "cpu" or config.training.image_size <= SMALL:
        return 1
    batch_size = min(config.distillation.student_batch_size, num_images)
    return max(1, min(torch.accelerator.device_count(), batch_size // LEAST_SHARE))


def train_as_team(
    job: Job, data: TrainingSet, device: torch.device, size: int, on_epoch: OnEpoch, checkpoint: Checkpoint | None
) -> Trained:
    """Train the student of `job` by `size` processes on devices of the kind of `device`.

    Raises
    ------
    OSError, ToldError: a process met it; the others were ended.
    RuntimeError: a process failed otherwise.
    """
    # The first process cannot use what this one keeps for itself of the same accelerator.
    release_cached_memory()
    told = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with TemporaryDirectory() as folder:
        arguments = (os.getpid(), size, device.type == "cpu", job, data, checkpoint, told, Path(folder))
        processes = spawn(_learn, arguments, size, join=False, daemon=True)
        try:
            while not processes.join(POLL_SECONDS):
                _tell(told, on_epoch)
        except ProcessException as error:
            _tell(told, on_epoch)
            last = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"one of the {size} processes that train the student ended: {last}") from error
        finally:
            for process in processes.processes:
                process.kill()
        _tell(told, on_epoch)
        weights, metadata = read_tensors(Path(folder) / STUDENT)
    return weights, json.loads(metadata["history"])


def _tell(told: Any, on_epoch: OnEpoch) -> None:
    """Pass on what the processes tell: entries of the history, or the error that ended one of them."""
    while not told.empty():
        entry = told.get()
        if isinstance(entry, Exception):
            raise entry
        on_epoch(entry)


def _learn(
    rank: int,
    parent: int,
    size: int,
    on_cpu: bool,
    job: Job,
    data: TrainingSet,
    checkpoint: Checkpoint | None,
    told: Any,
    folder: Path,
) -> None:
    end_with_parent(parent)
    threads = max(1, num_processors() // size)
    torch.set_num_threads(threads)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "OMP_NUM_THREADS": threads}
    os.environ.update({name: str(number) for name, number in place.items()})
    try:
        team = _join(rank, size, on_cpu, folder, is_builder(job.config.distillation.student_architecture))
        torch.manual_seed(job.config.seed + rank)
        weights, history = job.train(data, told.put if rank == 0 else lambda entry: None, checkpoint, team)
        if rank == 0:
            write_tensors(folder / STUDENT, weights, {"history": json.dumps(history)})
    except (OSError, ToldError) as error:
        told.put(error)
        raise
    except Exception as error:
        kind, line = type(error).__name__, first_line(error)
        told.put(RuntimeError(f"one of the {size} processes that train the student ended: {kind}: {line}"))
        raise
    team.end_training()


def _join(rank: int, size: int, on_cpu: bool, folder: Path, may_skip_layers: bool) -> Accelerator:
    """Let the processes meet in a file, which needs no port.

    may_skip_layers: a builder's net may use some layers for some images only.
    """
    if not on_cpu:
        torch.accelerator.set_device_index(rank)
    torch.distributed.init_process_group(
        "gloo" if on_cpu else None, init_method=(folder / "meeting").as_uri(), rank=rank, world_size=size
    )
    gradients = DistributedDataParallelKwargs(find_unused_parameters=may_skip_layers)
    return Accelerator(cpu=on_cpu, kwargs_handlers=[gradients])
