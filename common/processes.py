"""The processors that this process may use, files in use, and child processes, which end with their parent.

Nothing here needs a POSIX system: the same functions work on Windows.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

POLL_SECONDS = 1.0
CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where a container on Linux finds its own limits."""
OWN_GROUP: dict[str, Any] = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    if hasattr(subprocess, "CREATE_NEW_PROCESS_GROUP")
    else {"start_new_session": True}
)
"""Arguments of `subprocess.Popen` for a child that Ctrl-C does not reach: its parent ends it in order."""
UNICODE_OUTPUT = {"PYTHONIOENCODING": "utf-8:backslashreplace"}
"""The environment variable with which a Python child can print every name, whatever the system's encoding is."""


def num_processors() -> int:
    """The number of processor cores that this process may use: those that it is bound to, but no more than its
    container's CPU quota grants."""
    process = psutil.Process()
    # On macOS a process has no CPU affinity.
    bound = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
    return min(bound, read_quota(CONTROL_GROUP) or bound)


def read_quota(group: Path) -> int | None:
    """Processor cores that the CPU quota of a Linux control group grants, rounded up; None: there is no quota."""
    try:
        if (whole := group / "cpu.max").exists():
            quota, period = whole.read_text(encoding="utf-8").split()
        else:  # Version 1 of control groups has a file for each number.
            files = [group / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
            quota, period = (file.read_text(encoding="utf-8") for file in files)
        return math.ceil(int(quota) / int(period)) if int(quota) > 0 else None
    except (OSError, ValueError):  # It is no Linux, or the quota is "max".
        return None


def exit_on_sigterm() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does: what it started is ended in order.

    A second SIGTERM is ignored. Otherwise it would cut the tidying short, and `uv run` often sends a second one.
    """

    def leave(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)


def end_with_parent(parent: int) -> None:
    """End this process as soon as the process that started it, whose id is `parent`, has ended.

    The caller gives the id, since a process whose parent has ended may have another parent by the time that it asks,
    and on Windows a launcher stands in between.
    """

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(parent)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_processes(
    process: subprocess.Popen[Any], patience_seconds: float, known: Sequence[psutil.Process] = ()
) -> None:
    """Terminate a child process, kill it if it does not end in time, and kill all processes that it started.

    known: processes that it has started; they are found even if it has ended since.
    """
    below = {*known, *(child for parent in known for child in find_children(parent.pid)), *find_children(process.pid)}
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_seconds)
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
    for child in below:
        # A process whose id was given to another one is not killed: psutil compares the times of their starts.
        with suppress(psutil.Error):
            child.kill()
    if hasattr(os, "killpg"):
        # Those whose own parent has ended are no longer below it, but still in its group.
        for group in (process.pid, *(child.pid for child in known)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def is_open(file: Path) -> bool:
    """Whether a process that this one may look into has the file open."""
    path = os.path.realpath(file)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(each.path == path for each in process.open_files()):
                return True
    return False


def find_children(pid: int) -> list[psutil.Process]:
    """All processes below the one with this id; none if it has ended."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []
