"""One step of training on a batch: at once, or in parts as large as the accelerator's memory holds."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.devices import release_cached_memory, return_large_blocks, training_precision

FEWEST = 2
"""BatchNorm needs two images in a part."""


class Steps:
    """Steps of one optimizer; when memory runs out, on halves of a batch from then on, with their gradients added.

    An attempt that fails leaves no trace: BatchNorm's moments and the random numbers are as if it had not been made.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, client: str, image_size: int):
        self.model, self.optimizer, self.client = model, optimizer, client
        device = next(model.parameters()).device
        dtype = training_precision(model, image_size, device)
        # Gradients in float16 would have to be scaled.
        self.dtype = dtype if dtype == torch.bfloat16 else torch.float32
        return_large_blocks(model, image_size, device)
        self.most: int | None = None
        """Images that the memory was found to hold; None: not known yet."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Take one step, and return the mean cross-entropy, 0-dim.

        inputs: (B, 3, S, S), normalised. targets: labels int64 (B,), or probabilities (B, classes).

        Raises
        ------
        torch.OutOfMemoryError: the memory does not hold two images, or three of an odd batch.
        """
        undo = _remember(self.model, inputs.device)
        while True:
            most_parts = max(1, len(inputs) // FEWEST)
            parts = min(-(-len(inputs) // self.most), most_parts) if self.most else 1
            try:
                # Every part has its share of the general images, which come last in a batch.
                loss = self._add_gradients(*(tuple(each[i::parts] for i in range(parts)) for each in (inputs, targets)))
            except torch.OutOfMemoryError:
                if parts == most_parts:
                    raise
            else:
                self.optimizer.step()
                return loss
            undo()
            self.optimizer.zero_grad()
            release_cached_memory()
            size = -(-len(inputs) // parts)
            self.most = max(FEWEST, size // 2)
            print(f"{self.client}: out of memory with {size} images at once: going on with {self.most}", flush=True)

    def _add_gradients(self, inputs: tuple[torch.Tensor, ...], targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
        count, device = sum(map(len, inputs)), inputs[0].device
        self.optimizer.zero_grad()
        losses = []
        for images, asked in zip(inputs, targets, strict=True):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                loss = F.cross_entropy(self.model(images), asked) * (len(images) / count)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def _remember(model: torch.nn.Module, device: torch.device) -> Callable[[], None]:
    """A function that brings back the model's buffers, and the random numbers of processor and device."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    generators = [torch.random] if device.type == "cpu" else [torch.random, torch.get_device_module(device)]
    states = [(generator, generator.get_rng_state()) for generator in generators]

    def undo() -> None:
        for buffer, before in buffers:
            buffer.copy_(before)
        for generator, state in states:
            generator.set_rng_state(state)

    return undo
