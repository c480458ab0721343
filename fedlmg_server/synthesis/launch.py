"""Start the synthesis processes of this machine, watch them, and say what went wrong in one that fails."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from common.devices import default_device
from common.processes import num_processors
from fedlmg_server.run import Run
from fedlmg_server.synthesis import plan, store
from fedlmg_server.workspace import Workspace

POLL_SECONDS = 1.0
MODULE = "fedlmg_server.synthesis.worker"


def num_processes(run: Run) -> int:
    """One for each accelerator, else one for each processor core; no more than there are batches."""
    num_batches = sum(plan.num_batches(upload.class_names, run.config.synthesis) for upload in run.uploads)
    return min(torch.accelerator.device_count() or num_processors(), num_batches)


class Workers:
    """The running processes, none if no method lacks images; they generate one method after the other."""

    def __init__(self, workspace: Workspace, world_size: int, methods: Sequence[str]):
        logs = workspace.root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.workspace, world_size = workspace, world_size if methods else 0
        self.logs = [logs / f"synthesis-{rank}.log" for rank in range(world_size)]
        self.processes = [_start(workspace, methods, rank, world_size, log) for rank, log in enumerate(self.logs)]

    def wait(
        self, method: str, is_complete: Callable[[], bool], on_progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """Wait until all images of the method are there; `on_progress` gets the number that the workspace holds.

        Raises
        ------
        RuntimeError: a process failed; its log's last line is in the message.
        """
        count = -1
        while True:
            over = all(process.poll() is not None for process in self.processes)
            if count != (count := store.count_images(self.workspace, method)):
                on_progress(count)
            self._check()
            if over or is_complete():
                return
            time.sleep(POLL_SECONDS)

    def _check(self) -> None:
        for process, log in zip(self.processes, self.logs, strict=True):
            if process.poll():
                last = (log.read_text().strip().splitlines() or ["no output"])[-1]
                raise RuntimeError(f"a synthesis process ended with {process.returncode} ({log}): {last}")

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()


@contextmanager
def start_workers(workspace: Workspace, world_size: int, methods: Sequence[str] = ("fedlmg",)) -> Iterator[Workers]:
    """`world_size` processes that generate all missing images; those that still run at the end of the block are
    stopped."""
    started = Workers(workspace, world_size, methods)
    try:
        yield started
    finally:
        started.stop()


def _start(workspace: Workspace, methods: Sequence[str], rank: int, world_size: int, log: Path) -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    if default_device().type == "cpu":
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", MODULE, str(workspace.root), "--with-parent", str(os.getpid())]
    command += ["--methods", *methods]
    with open(log, "w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=workspace.root)
