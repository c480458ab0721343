"""A batch in one piece, or in parts as large as the GPU's memory holds."""

from collections.abc import Callable

import torch

from fedlmg_server.synthesis.plan import PlannedImage


class WithinMemory:
    """Generates a batch at once; when memory runs out, in halves from then on."""

    def __init__(self, generate: Callable[[list[PlannedImage]], torch.Tensor]):
        self.generate = generate
        self.most: int | None = None
        """Images that the memory was found to hold; None: not known yet."""

    def __call__(self, batch: list[PlannedImage]) -> torch.Tensor:
        """Images (B, 3, h, w).

        Raises
        ------
        torch.OutOfMemoryError: the memory does not hold even one image.
        """
        images = []
        while batch:
            part = batch[: self.most]
            try:
                images.append(self.generate(part))
                batch = batch[len(part) :]
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            torch.cuda.empty_cache()
            self.most = len(part) // 2
            print(f"out of memory with {len(part)} images at once: going on with {self.most}", flush=True)
        return torch.cat(images)
