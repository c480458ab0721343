"""Start the synthesis processes of this machine, watch them, and say what went wrong in one that fails."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from common.workspace import Workspace

POLL_SECONDS = 1.0
MODULE = "fedlmg_server.synthesis.worker"


def num_processes() -> int:
    """One for each GPU, else one for each processor core that this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def draw_all(workspace: Workspace, guided: bool, on_progress: Callable[[int], None] = lambda drawn: None) -> None:
    """Draw all that is missing; `on_progress` gets the number of images in the workspace.

    Raises
    ------
    RuntimeError: a process failed; its log's last line is in the message.
    """
    logs = workspace.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    world_size = num_processes()
    kind = "fedlmg" if guided else "prompts-only"
    log_files = [logs / f"synthesis-{kind}-{rank}.log" for rank in range(world_size)]
    processes = [_start(workspace, guided, rank, world_size, log_file) for rank, log_file in enumerate(log_files)]
    try:
        drawn = -1
        while any(process.poll() is None for process in processes):
            if drawn != (drawn := num_drawn(workspace, kind)):
                on_progress(drawn)
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    for process, log_file in zip(processes, log_files, strict=True):
        if process.returncode:
            last = (log_file.read_text().strip().splitlines() or ["no output"])[-1]
            raise RuntimeError(f"a synthesis process ended with {process.returncode} ({log_file}): {last}")
    on_progress(num_drawn(workspace, kind))


def num_drawn(workspace: Workspace, kind: str) -> int:
    """Images in the workspace."""
    folders = workspace.synthetic("any", kind).parent
    return sum(1 for _ in folders.glob("*/*/[!.]*.png"))


def _start(workspace: Workspace, guided: bool, rank: int, world_size: int, log_file: Path) -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    if not torch.cuda.is_available():
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", MODULE, str(workspace.root), *([] if guided else ["--prompts-only"])]
    with open(log_file, "w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=workspace.root)
