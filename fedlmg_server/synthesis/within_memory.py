"""A batch in one piece, or in parts as large as the memory holds, and with less memory for each if need be."""

from collections.abc import Callable

import torch
from accelerate.utils.memory import should_reduce_batch_size

from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.synthesis.plan import PlannedImage
from fedlmg_server.synthesis.processor_memory import ProcessorMemory


class WithinMemory:
    """Generates a batch at once; when memory runs out, in halves from then on, and where it does not hold one image, by
    one after the other of the backend's ways to save it. On a processor, parts of large images begin small (see
    `processor_memory`)."""

    def __init__(self, generate: Callable[[list[PlannedImage]], torch.Tensor], backend: DiffusionBackend):
        self.generate, self.backend = generate, backend
        self.memory = ProcessorMemory(backend.device, backend.pixels)
        self.most: int | None = None
        """Images that the memory was found to hold; None: not known yet."""

    def __call__(self, batch: list[PlannedImage]) -> torch.Tensor:
        """Images (B, 3, h, w).

        Raises
        ------
        RuntimeError: the memory does not hold even one image, in any way.
        """
        images = []
        while batch:
            part = batch[: self._most(batch)]
            try:
                images.append(self._draw(part, is_whole=len(part) == len(batch)))
                batch = batch[len(part) :]
                continue
            except RuntimeError as error:
                if not (_is_out_of_memory(error) and (change := self._need_less(len(part)))):
                    raise
            torch.cuda.empty_cache()
            print(f"out of memory with {len(part)} images at once: {change}", flush=True)
        return torch.cat(images)

    def _draw(self, part: list[PlannedImage], is_whole: bool) -> torch.Tensor:
        if self.memory.most is None or is_whole:
            return self.generate(part)
        with self.memory.measuring(len(part)):
            return self.generate(part)

    def _most(self, batch: list[PlannedImage]) -> int:
        return min(most for most in (len(batch), self.most, self.memory.most) if most)

    def _need_less(self, num_images: int) -> str:
        """What is different from now on; empty: nothing can be."""
        if num_images == 1:
            return self.backend.save_memory()
        self.most = num_images // 2
        return f"going on with {self.most}"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """That of an accelerator has a class of its own, that of a processor only a text."""
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
