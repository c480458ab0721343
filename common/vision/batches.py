"""Random batches of an epoch. A last batch of one image is left out: BatchNorm has no variance of a single image."""

import torch


def count_batches(num_images: int, batch_size: int) -> int:
    """Number of batches that `shuffle_batches` returns; `batch_size` is at least 2."""
    return num_images // batch_size + (num_images % batch_size > 1)


def shuffle_batches(num_images: int, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Rows of each batch, int64 (B,), in an order that the generator decides."""
    batches = torch.randperm(num_images, generator=generator).split(batch_size)
    return [rows for rows in batches if len(rows) > 1]
