"""Train one student by several processes, each with an accelerator of its own and a share of every batch.

Hugging Face's `accelerate` joins the processes; PyTorch's DistributedDataParallel averages their gradients. BatchNorm's
moments are those of the first process's share.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from torch.multiprocessing.spawn import ProcessException, spawn

from common.config import Config
from common.network import find_free_port
from common.processes import end_with_parent
from common.storage.tensors import read_tensors, write_tensors
from fedlmg_server.distillation.job import Job, Trained
from fedlmg_server.trainer import SMALL, Checkpoint, OnEpoch, TrainingSet

LEAST_SHARE = 8
"""Images of a batch for each process: fewer say too little of BatchNorm's moments."""
POLL_SECONDS = 0.5


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
    RuntimeError: a process failed; the others were ended.
    """
    told = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "student.safetensors"
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port()), "WORLD_SIZE": str(size)}
        arguments = (os.getpid(), meeting, device.type == "cpu", job, data, checkpoint, told, out)
        processes = spawn(_learn, arguments, size, join=False, daemon=True)
        try:
            while not processes.join(POLL_SECONDS):
                _tell(told, on_epoch)
        except ProcessException as error:
            last = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"one of the {size} processes that train the student ended: {last}") from error
        finally:
            for process in processes.processes:
                process.kill()
        _tell(told, on_epoch)
        weights, metadata = read_tensors(out)
    return weights, json.loads(metadata["history"])


def _tell(told: Any, on_epoch: OnEpoch) -> None:
    while not told.empty():
        on_epoch(told.get())


def _learn(
    rank: int,
    parent: int,
    meeting: dict[str, str],
    on_cpu: bool,
    job: Job,
    data: TrainingSet,
    checkpoint: Checkpoint | None,
    told: Any,
    out: Path,
) -> None:
    end_with_parent(parent)
    os.environ.update(meeting, RANK=str(rank), LOCAL_RANK=str(rank))
    if on_cpu:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    team = Accelerator(cpu=on_cpu)
    torch.manual_seed(job.config.seed + rank)
    weights, history = job.train(data, told.put if team.is_main_process else lambda entry: None, checkpoint, team)
    if team.is_main_process:
        write_tensors(out, weights, {"history": json.dumps(history)})
    team.end_training()
