"""Images with their labels: in memory, as an embedded dataset gives them, or by rows of a file."""

from dataclasses import dataclass
from typing import Self

import torch

from common.storage.images import ImageView


@dataclass(frozen=True)
class LabeledImages:
    """images: uint8 (N, 3, h, w); labels: int64 (N,), indices into the dataset's class names."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class LabeledView:
    """The same of images that a reader takes by rows, and that may lie in a file."""

    images: ImageView
    labels: torch.Tensor

    @classmethod
    def of(cls, images: LabeledImages) -> Self:
        return cls(ImageView.of(images.images), images.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def choose(self, rows: torch.Tensor) -> "LabeledView":
        """Some of them: rows int64 (B,), or bool (N,)."""
        return LabeledView(self.images.choose(rows), self.labels[rows])

    def with_labels(self, labels: torch.Tensor) -> "LabeledView":
        """The images whose new label, of int64 (N,), is not -1, under these labels."""
        known = labels >= 0
        return LabeledView(self.images if known.all() else self.images.choose(known), labels[known])

    def join(self, other: "LabeledView") -> "LabeledView":
        """These and then the others."""
        return LabeledView(self.images.join(other.images), torch.cat([self.labels, other.labels]))

    def read(self) -> LabeledImages:
        """All of them, in memory."""
        return LabeledImages(self.images.read(), self.labels)
