"""Processes that we start must not outlive us, even when we are killed."""

import os
import threading
import time

POLL_SECONDS = 1.0


def end_with_parent(parent: int) -> None:
    """From now on, end this process at once when the process that started it, whose number is `parent`, has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
