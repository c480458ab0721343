"""A batch in one piece, or in parts as large as the memory holds, and with less memory for each if need be."""

from collections.abc import Callable

import torch

from fedlmg_server.synthesis.plan import PlannedImage


class WithinMemory:
    """Generates a batch at once; when memory runs out, in halves from then on, and where it does not hold one image, by
    one after the other of the ways to save it."""

    def __init__(self, generate: Callable[[list[PlannedImage]], torch.Tensor], save_memory: Callable[[], str]):
        """save_memory: as of a backend."""
        self.generate, self.save_memory = generate, save_memory
        self.most: int | None = None
        """Images that the memory was found to hold; None: not known yet."""

    def __call__(self, batch: list[PlannedImage]) -> torch.Tensor:
        """Images (B, 3, h, w).

        Raises
        ------
        torch.OutOfMemoryError: the memory does not hold even one image, in any way.
        """
        images = []
        while batch:
            part = batch[: self.most]
            try:
                images.append(self.generate(part))
                batch = batch[len(part) :]
                continue
            except torch.OutOfMemoryError:
                if not (change := self._need_less(len(part))):
                    raise
            torch.cuda.empty_cache()
            print(f"out of memory with {len(part)} images at once: {change}", flush=True)
        return torch.cat(images)

    def _need_less(self, num_images: int) -> str:
        """What is different from now on; empty: nothing can be."""
        if num_images == 1:
            return self.save_memory()
        self.most = num_images // 2
        return f"going on with {self.most}"
