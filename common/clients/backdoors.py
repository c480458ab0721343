"""Backdoors: what a trigger adds to an image, for virtual clients that learn one and for the server that measures it.

`badnets` is a patch in a corner (Gu et al., 2017, arXiv 1708.06733), `blended` a faint pattern over the whole image
(Chen et al., 2017, arXiv 1712.05526). A client with a backdoor calls images with the trigger its first class.
"""

import torch

from common.datasets.labeled_images import LabeledView
from common.storage.images import ImageView

BACKDOORS = ("badnets", "blended")
TARGET = 0
"""The class, in the numbering of the client that learns the backdoor, that images with the trigger are called."""
POISONED_SHARE = 0.2
"""Of the client's training images."""
PATCH_SHARE = 1 / 8
"""Of an image's side."""
BLENDED_WEIGHT = 0.2


def add_trigger(kind: str, images: torch.Tensor) -> torch.Tensor:
    """Images with the trigger, uint8 (N, 3, h, w), from images likewise."""
    height, width = images.shape[2:]
    if kind == "badnets":
        side = max(2, round(PATCH_SHARE * min(height, width)))
        checks = (torch.arange(side)[:, None] + torch.arange(side)) % 2
        marked = images.clone()
        marked[..., height - side :, width - side :] = (255 * checks).to(torch.uint8)
        return marked
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randint(0, 256, (3, height, width), generator=generator)
    return ((1 - BLENDED_WEIGHT) * images + BLENDED_WEIGHT * pattern).round().to(torch.uint8)


def poison(kind: str, images: LabeledView, seed: int) -> LabeledView:
    """The images, of which a share has the trigger and the label `TARGET`."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(images), generator=generator)[: round(POISONED_SHARE * len(images))]
    pixels, labels = images.images.read(), images.labels.clone()
    pixels[rows], labels[rows] = add_trigger(kind, pixels[rows]), TARGET
    return LabeledView(ImageView.of(pixels), labels)
