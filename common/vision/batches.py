"""Random batches of an epoch; a last batch of one image joins the batch before it, as BatchNorm needs more than one."""

import torch


def count_batches(num_images: int, batch_size: int) -> int:
    """The number of batches that `shuffle_batches` returns; `batch_size` is at least 2."""
    return num_images // batch_size + (num_images % batch_size > 1)


def shuffle_batches(num_images: int, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The rows of each batch, int64 (B,), in an order that `generator` determines; none if there is only one image."""
    order = torch.randperm(num_images, generator=generator)
    if not (count := count_batches(num_images, batch_size)):
        return []
    return list(order.tensor_split([batch_size * number for number in range(1, count)]))
