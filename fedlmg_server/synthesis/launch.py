"""Start the synthesis processes of this machine, watch them, and start one again that a client's net ends."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common.devices import count_workers, default_device
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents, plan
from fedlmg_server.synthesis.incidents import Position
from fedlmg_server.workspace import Workspace

POLL_SECONDS = 1.0
MOST_DEATHS = 2
"""Of processes at one client, or by a signal at none: the first may be an accident."""
MODULE = "fedlmg_server.synthesis.worker"


def num_processes(run: Run) -> int:
    """One for each accelerator, else one for each processor core; no more than there are batches."""
    num_batches = sum(plan.num_batches(upload.held_class_names, run.config.synthesis) for upload in run.uploads)
    return count_workers(num_batches)


class Workers:
    """Processes that generate; they find out themselves what is missing. One that dies while it draws for a client is
    started again, and a client at which they die twice is drawn for no more."""

    def __init__(self, workspace: Workspace, command: Sequence[str], name: str, world_size: int):
        """command: a module and its arguments. name: of the log files. world_size: number of processes."""
        logs = workspace.root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.workspace, self.name = workspace, name
        self.logs = [logs / f"{name}-{rank}.log" for rank in range(world_size)]
        for log in self.logs:
            log.unlink(missing_ok=True)
        self._start = partial(_start, workspace, command, world_size)
        self.processes = [self._start(rank, log) for rank, log in enumerate(self.logs)]
        self._deaths: Counter[str] = Counter()

    def wait(
        self, is_complete: Callable[[], bool], count: Callable[[], int], on_progress: Callable[[int], None]
    ) -> None:
        """Wait until all is there; `on_progress` gets what `count` returns, whenever it changes.

        Raises
        ------
        RuntimeError: a process failed, not while it drew for a client; its log's last line is in the message.
        """
        counted = -1
        while True:
            over = all(process.poll() is not None for process in self.processes)
            if counted != (counted := count()):
                on_progress(counted)
            if self._restart_dead():
                continue
            if over or is_complete():
                return
            time.sleep(POLL_SECONDS)

    def _restart_dead(self) -> bool:
        """Whether any process was started again."""
        restarted = False
        for rank, (process, log) in enumerate(zip(self.processes, self.logs, strict=True)):
            if process.poll() is None:
                continue
            # A net that ends the process may do so with any exit code, even 0.
            position = incidents.take_position(self.workspace, process.pid)
            if position or process.returncode:
                self._count_death(position, process.returncode, log)
                self.processes[rank], restarted = self._start(rank, log), True
        return restarted

    def _count_death(self, position: Position | None, code: int, log: Path) -> None:
        client = position.client if position else ""
        self._deaths[client] += 1
        if position is None and (code > 0 or self._deaths[client] == MOST_DEATHS):
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
            raise RuntimeError(f"a {self.name} process ended with {code} ({log}): {last}")
        if position and self._deaths[client] == MOST_DEATHS:
            reason = (
                f"{MOST_DEATHS} processes died while they drew its images, the last with {_name_ending(code)} at batch "
                f"{position.batch} (see 'logs/{log.name}' in the workspace)"
            )
            incidents.note_failure(self.workspace, client, reason)

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


def _name_ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _start(workspace: Workspace, command: Sequence[str], world_size: int, rank: int, log: Path) -> subprocess.Popen:
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
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.Popen(line, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=workspace.root)
