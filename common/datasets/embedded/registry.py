"""The embedded federations: clients' images by domain, and a public set of other looks of the same classes."""

from collections.abc import Callable
from dataclasses import dataclass

from common.datasets.embedded import digits, emoji, public_digits, public_emoji
from common.datasets.labeled_images import LabeledImages


@dataclass(frozen=True)
class Embedded:
    name: str
    class_names: tuple[str, ...]
    domains: tuple[str, ...]
    load: Callable[[str], dict[str, LabeledImages]]
    """The splits of one domain."""
    make_public_images: Callable[..., LabeledImages]
    """`num_images` public images by `seed`; with the purpose `public-held-out`, of what the others never show."""
    public_sources: str
    """What public images are made from, for a model card."""


EMBEDDED = {
    "digits": Embedded(
        "digits",
        digits.CLASS_NAMES,
        digits.DOMAINS,
        digits.load,
        public_digits.make_images,
        "digits in many looks (`common/datasets/embedded/public_digits.py`), drawn from MNIST digits, fonts and photos "
        "that no client of the embedded federation holds",
    ),
    "emoji": Embedded(
        "emoji",
        emoji.CLASS_NAMES,
        emoji.DOMAINS,
        emoji.load,
        public_emoji.make_images,
        "emoji in many looks (`common/datasets/embedded/public_emoji.py`), drawn from artists that are no clients of "
        "the embedded federation, and showing nothing that its test images show",
    ),
}


def find_dataset(federation: str) -> Embedded:
    """The images behind a federation's name; those without images of their own are digits."""
    return EMBEDDED.get(federation, EMBEDDED["digits"])
