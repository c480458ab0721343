"""Random batches of an epoch, and how their images reach the device.

A last batch of one image joins the batch before it, as BatchNorm needs more than one.
"""

from collections.abc import Iterable, Iterator

import torch

from common.storage.images import Images, ImageView
from common.vision.preprocessing import PreprocessSpec

UNLIKE = 2
"""The classes of a set are drawn alike if the largest has more than this many times the images of the smallest."""
MOST_ON_DEVICE = 2**30
"""Bytes of images that are kept on an accelerator; more are moved there batch by batch."""


def count_batches(num_images: int, batch_size: int) -> int:
    """The number of batches that `shuffle_batches` returns; `batch_size` is at least 2."""
    return num_images // batch_size + (num_images % batch_size > 1)


def shuffle_batches(num_images: int, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The rows of each batch, int64 (B,), in an order that `generator` determines; none if there is only one image."""
    return _split(torch.randperm(num_images, generator=generator), batch_size)


def balance_batches(labels: torch.Tensor, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """As `shuffle_batches`, of the rows that `balance_rows` draws."""
    return _split(balance_rows(labels, generator), batch_size)


def balance_rows(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """As many rows as labels, int64 (N,), in random order: each row once or, where the classes' sizes are `UNLIKE`, as
    many of each class as of every other by chance, so that some rows come more than once (ours)."""
    counts = labels.bincount(minlength=1).cpu()
    held = counts[counts > 0]
    if not len(held) or held.max() <= UNLIKE * held.min():
        return torch.randperm(len(labels), generator=generator)
    return torch.multinomial(1 / counts.double()[labels.cpu()], len(labels), True, generator=generator)


def _split(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    num_images = len(order)
    if not (count := count_batches(num_images, batch_size)):
        return []
    return list(order.tensor_split([batch_size * number for number in range(1, count)]))


def keep_on_device(images: Images, preprocess: PreprocessSpec, device: torch.device) -> ImageView:
    """The same images, on an accelerator if they are few; of the classifier's size there."""
    view = ImageView.of(images)
    if device.type == "cpu" or view.num_bytes > MOST_ON_DEVICE:
        return view
    return ImageView.of(preprocess.resize(view.read()).to(device))


def read_batches(
    images: ImageView, batches: Iterable[torch.Tensor], preprocess: PreprocessSpec, device: torch.device
) -> Iterator[torch.Tensor]:
    """Each batch of rows, int64 (B,), as images float32 (B, 3, image_size, image_size) in [0, 1] on the device."""
    for pixels in images.read_parts(batches):
        yield preprocess.resize(pixels).to(device, non_blocking=True).float() / 255
