"""Start the synthesis processes of this machine, watch them, and say what went wrong in one that fails."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
    num_batches = sum(plan.num_batches(upload.held_class_names, run.config.synthesis) for upload in run.uploads)
    return min(torch.accelerator.device_count() or num_processors(), num_batches)


class Workers:
    """Processes that generate; they find out themselves what is missing."""

    def __init__(self, workspace: Workspace, command: Sequence[str], name: str, world_size: int):
        """command: a module and its arguments. name: of the log files. world_size: number of processes."""
        logs = workspace.root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.workspace, self.name = workspace, name
        self.logs = [logs / f"{name}-{rank}.log" for rank in range(world_size)]
        self.processes = [_start(workspace, command, rank, world_size, log) for rank, log in enumerate(self.logs)]

    def wait(
        self, method: str, is_complete: Callable[[], bool], on_progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """Wait until all images of the method are there; `on_progress` gets the number that the workspace holds.

        Raises
        ------
        RuntimeError: a process failed; its log's last line is in the message.
        """
        self.wait_until(is_complete, partial(store.count_images, self.workspace, method), on_progress)

    def wait_until(
        self, is_complete: Callable[[], bool], count: Callable[[], int], on_progress: Callable[[int], None]
    ) -> None:
        """Wait until all is there; `on_progress` gets what `count` returns, whenever it changes.

        Raises
        ------
        RuntimeError: a process failed; its log's last line is in the message.
        """
        counted = -1
        while True:
            over = all(process.poll() is not None for process in self.processes)
            if counted != (counted := count()):
                on_progress(counted)
            self._check()
            if over or is_complete():
                return
            time.sleep(POLL_SECONDS)

    def _check(self) -> None:
        for process, log in zip(self.processes, self.logs, strict=True):
            if process.poll():
                last = (log.read_text().strip().splitlines() or ["no output"])[-1]
                raise RuntimeError(f"a {self.name} process ended with {process.returncode} ({log}): {last}")

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()


@contextmanager
def start_workers(workspace: Workspace, world_size: int, methods: Sequence[str] = ("fedlmg",)) -> Iterator[Workers]:
    """`world_size` processes that generate all missing images, one method after the other; none if no method lacks
    images. Those that still run at the end of the block are stopped."""
    command = [MODULE, str(workspace.root), "--methods", *methods]
    with running(workspace, command, "synthesis", world_size if methods else 0) as workers:
        yield workers


@contextmanager
def running(workspace: Workspace, command: Sequence[str], name: str, world_size: int) -> Iterator[Workers]:
    """Processes as `Workers` takes them; those that still run at the end of the block are stopped."""
    started = Workers(workspace, command, name, world_size)
    try:
        yield started
    finally:
        started.stop()


def _start(workspace: Workspace, command: Sequence[str], rank: int, world_size: int, log: Path) -> subprocess.Popen:
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
    line = [sys.executable, "-m", *command, "--with-parent", str(os.getpid())]
    with open(log, "w") as file:
        return subprocess.Popen(line, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=workspace.root)
