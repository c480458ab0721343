"""The embedded emoji: the same things drawn by four artists, 32 x 32 RGB, ten classes.

`noto`       shaded colour on pale paper
`twemoji`    flat colour on dark screens
`openmoji`   outlined colour over photo patches
`monotone`   one ink on coloured paper (EmojiOne's)

Splits are held out by concept. What a test image shows (such as a fox) is in no training image of any client or artist,
nor in the public images for training.
"""

from functools import cache

import numpy as np
import torch

from common.datasets.embedded import emoji_sheets, glyphs
from common.datasets.embedded.digits import SPLIT_SIZES
from common.datasets.labeled_images import LabeledImages

DOMAINS = ("noto", "twemoji", "openmoji", "monotone")
CLASS_NAMES = ("animal", "building", "clothing", "face", "food", "hand", "person", "plant", "sky", "vehicle")

_SHEETS = {"monotone": "emojione-monotone"}


def load(domain: str) -> dict[str, LabeledImages]:
    """The train, validation and test images of one artist, uint8 (N, 3, 32, 32); all classes are of equal size.

    Raises
    ------
    ValueError: `domain` is not one of `DOMAINS`.
    """
    if domain not in DOMAINS:
        raise ValueError(f"the domain of embedded emoji must be one of {', '.join(DOMAINS)}, got {domain!r}")
    return {split: _draw(domain, split, size) for split, size in SPLIT_SIZES.items()}


@cache
def _draw(domain: str, split: str, size: int) -> LabeledImages:
    """The images of one split, which show the concepts of each class in turn, each time placed at random."""
    artist = _SHEETS.get(domain, domain)
    rng = np.random.default_rng([DOMAINS.index(domain), list(SPLIT_SIZES).index(split)])
    images, labels = [], rng.permutation(np.arange(size) % len(CLASS_NAMES))
    seen = dict.fromkeys(range(len(CLASS_NAMES)), 0)
    for label in labels.tolist():
        concepts = emoji_sheets.list_concepts(artist, split, CLASS_NAMES[label])
        tile = emoji_sheets.read_drawing(artist, concepts[seen[label] % len(concepts)])
        seen[label] += 1
        placed = emoji_sheets.place_drawing(tile, rng, turn=10, scale=(0.75, 1.0), shift=2)
        images.append(_show(domain, placed, rng))
    return LabeledImages(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))


def _show(domain: str, placed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if domain == "noto":
        return emoji_sheets.paste_over(placed, rng.uniform(225, 255, 3))
    if domain == "twemoji":
        return emoji_sheets.paste_over(placed, rng.uniform(0, 60, 3))
    if domain == "openmoji":
        return emoji_sheets.paste_over(placed, glyphs.photo_patch("flower", rng).astype(np.float32))
    placed[..., :3] = rng.uniform(0, 60, 3)
    return emoji_sheets.paste_over(placed, rng.uniform(90, 220, 3))
