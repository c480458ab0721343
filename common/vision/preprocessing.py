"""The resize and normalisation with which a client trains and the server guides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

IMAGENET = "imagenet"
"""Initial weights that are torchvision's."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the RGB channels, with which torchvision's ImageNet weights were trained."""


@dataclass(frozen=True)
class PreprocessSpec:
    """A differentiable preprocessing; `mean` and `std` belong to the RGB channels of images in [0, 1]."""

    image_size: int = 32
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    @classmethod
    def of(cls, image_size: int, initialisation: str = "") -> "PreprocessSpec":
        """Normalised as the initial weights learned to see images: torchvision's by ImageNet's moments."""
        return cls(image_size, IMAGENET_MEAN, IMAGENET_STD) if initialisation == IMAGENET else cls(image_size)

    def resize(self, images: torch.Tensor) -> torch.Tensor:
        """Resize images (..., 3, h, w) of any dtype to (..., 3, image_size, image_size); bilinear and antialiased."""
        if images.shape[-2:] == (self.image_size, self.image_size):
            return images
        size = [self.image_size] * 2
        resized: torch.Tensor = F.resize(images, size, v2.InterpolationMode.BILINEAR, antialias=True)
        return resized

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise float images in [0, 1] by `mean` and `std`."""
        normalized: torch.Tensor = F.normalize(images, list(self.mean), list(self.std))
        return normalized

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """From float images (B, 3, h, w) in [0, 1] to a classifier's input (B, 3, image_size, image_size)."""
        return self.normalize(self.resize(images))

    def to_json(self) -> dict[str, Any]:
        """The spec as a dictionary for a JSON file."""
        return {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PreprocessSpec":
        """Undo `to_json`."""
        return cls(int(content["image_size"]), tuple(content["mean"]), tuple(content["std"]))
