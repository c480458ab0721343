"""Random batches of an epoch; a last batch of one image is left out, because BatchNorm needs more than one."""

import torch


def count_batches(num_images: int, batch_size: int) -> int:
    """The number of batches that `shuffle_batches` returns; `batch_size` is at least 2."""
    return num_images // batch_size + (num_images % batch_size > 1)


def shuffle_batches(num_images: int, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The rows of each batch, int64 (B,), in an order that `generator` determines."""
    batches = torch.randperm(num_images, generator=generator).split(batch_size)
    return [rows for rows in batches if len(rows) > 1]
