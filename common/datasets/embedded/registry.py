"""The embedded datasets: clients' images by domain, and public images of the same classes in other looks."""

from collections.abc import Callable
from dataclasses import dataclass

from common.datasets.embedded import digits, emoji, public_digits, public_emoji
from common.datasets.labeled_images import LabeledImages


@dataclass(frozen=True)
class Embedded:
    """One embedded dataset: 32 x 32 images in several domains, and public images to pretrain a diffusion model."""

    name: str
    class_names: tuple[str, ...]
    domains: tuple[str, ...]
    load: Callable[[str], dict[str, LabeledImages]]
    """Domain -> its splits `train`, `validation` and `test`."""
    make_public_images: Callable[..., LabeledImages]
    """Makes `num_images` public images from `seed`.

    With the purpose `public-held-out`, they are made from material that the other public images never show.
    """
    public_sources: str
    """What the public images are made from, for the model card of a diffusion model."""


EMBEDDED = {
    "digits": Embedded(
        "digits",
        digits.CLASS_NAMES,
        digits.DOMAINS,
        digits.load,
        public_digits.make_images,
        "digits in many looks (`common/datasets/embedded/public_digits.py`), made from MNIST digits, fonts and photos "
        "that no client of the embedded dataset holds",
    ),
    "emoji": Embedded(
        "emoji",
        emoji.CLASS_NAMES,
        emoji.DOMAINS,
        emoji.load,
        public_emoji.make_images,
        "emoji in many looks (`common/datasets/embedded/public_emoji.py`), by artists that are no clients of the "
        "embedded dataset; they show nothing that the clients' test images show",
    ),
}


def find_dataset(federation: str) -> Embedded:
    """The embedded dataset of this name; any other name gives the digits."""
    return EMBEDDED.get(federation, EMBEDDED["digits"])
