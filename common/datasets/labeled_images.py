"""Images with their labels, as every dataset gives them."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LabeledImages:
    """images: uint8 (N, 3, h, w); labels: int64 (N,), indices into the dataset's class names."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)
