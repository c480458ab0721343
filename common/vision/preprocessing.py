"""The resize and normalisation with which a client trains and the server guides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


@dataclass(frozen=True)
class PreprocessSpec:
    """A differentiable preprocessing; `mean` and `std` belong to the RGB channels of images in [0, 1]."""

    image_size: int = 32
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

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
