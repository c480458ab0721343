"""A start of untrained models for clients of two classes, in images of 16 pixels."""

import torch

from common.datasets.labeled_images import LabeledImages
from common.models import architectures
from common.start import Start
from common.vision.preprocessing import PreprocessSpec

CLASSES = ["bird", "cat", "dog"]
"""Of the run: a class more than the clients of these tests hold."""


def make_start(
    *names: str, num_replayed: int = 8, class_names: list[str] | None = None, size: int = 16, seed: int = 0
) -> Start:
    """General models of the named architectures, as they are sent, and replay images of noise."""
    class_names = class_names or CLASSES
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_replayed, 3, size, size), generator=generator, dtype=torch.uint8)
    torch.manual_seed(seed)
    states = {name: architectures.build(name, len(class_names), size).state_dict() for name in names}
    models = {
        name: {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        for name, state in states.items()
    }
    replay = LabeledImages(images, torch.arange(num_replayed) % len(class_names))
    return Start(class_names, PreprocessSpec(size), "digits", models, replay)
