"""How many images a processor's memory holds at once, as measured on the first ones.

On a processor nobody says that memory has run out: the system kills the process. So large images are drawn one after
the other at first, and more at once as far as the memory that they take allows.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from common.devices import measure_free_memory
from common.processes import num_processors

SURE_PIXELS = 2**18
"""Pixels that are drawn at once without measuring: one image of 512 x 512, or 256 of 32 x 32."""
SHARE = 0.7
"""Of the free memory, for all processes together that draw side by side: one for each processor core."""
GROWTH = 4
"""How many times the images of a measured part the next one may have."""
POLL_SECONDS = 0.02


class ProcessorMemory:
    """Measures what parts of batches take on a processor; `most` is what the next part may have, None: anything."""

    def __init__(self, device: torch.device, pixels: int | None):
        """pixels: of a side of an image; None: unknown."""
        self.most = max(1, SURE_PIXELS // pixels**2) if device.type == "cpu" and pixels else None
        self._before = psutil.Process().memory_info().rss
        self._allowed = SHARE * measure_free_memory(torch.device("cpu")) / num_processors()
        self._of_one = 1.0
        """The most bytes that an image took so far."""

    @contextmanager
    def measuring(self, num_images: int) -> Iterator[None]:
        """While a part of `num_images` is drawn, of a batch that has more."""
        peak, is_over, process = 0, threading.Event(), psutil.Process()

        def watch() -> None:
            nonlocal peak
            while not is_over.wait(POLL_SECONDS):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()
        # Memory that an earlier part left to the process is used again, so all is compared with what was there first.
        self._of_one = max(self._of_one, (peak - self._before) / num_images)
        self.most = max(1, min(GROWTH * num_images, int(self._allowed / self._of_one)))
