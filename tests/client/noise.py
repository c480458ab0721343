"""A client of noise, labelled in turn: nothing but its own images can be learned from it."""

import torch

from common.clients.data import ClientData
from common.datasets.labeled_images import LabeledView
from common.storage.images import ImageView


def noise_data(num_train: int, num_held_out: int, source: str = "folder") -> ClientData:
    """Images of 16 pixels; as many for validation as for tests."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> LabeledView:
        images = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
        return LabeledView(ImageView.of(images), torch.arange(count) % 2)

    splits = split(num_train), split(num_held_out), split(num_held_out)
    return ClientData("tiny", ["cat", "dog"], *splits, "fingerprint", source)
