"""The processors that this process may use, and child processes that end when their parent is killed."""

import os
import threading
import time

import psutil

POLL_SECONDS = 1.0


def num_processors() -> int:
    """The number of processor cores that this process may use."""
    process = psutil.Process()
    # On macOS a process has no CPU affinity.
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def end_with_parent(parent: int) -> None:
    """End this process as soon as its parent process, which has the process id `parent`, has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
