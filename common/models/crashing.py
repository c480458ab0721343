"""A net with a bug that no check of an upload finds: the fault `crashing-architecture` of a virtual client."""

import torch
from torch import nn

from common.models.small import SmallResNet

MOST_IMAGES = 8
"""That are guided at once; validation asks for as many, synthesis for more."""


class Crashing(SmallResNet):
    """The small ResNet, which raises where more than eight images at once are to have a gradient."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad and len(images) > MOST_IMAGES:
            raise RuntimeError(f"this net takes {MOST_IMAGES} images at most, got {len(images)}")
        return super().forward(images)


def build(num_classes: int, image_size: int) -> nn.Module:
    """A builder as `architectures` takes it; the image size does not matter."""
    return Crashing(num_classes)
