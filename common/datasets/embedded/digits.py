"""The embedded digits: four domains that look very different, 32 x 32 RGB, ten classes, splits fixed by seed.

`mnist`      handwriting, white on black
`optdigits`  the UCI optical digits, 8 x 8 pixels enlarged, grey on black
`mnist-m`    handwriting blended with photo patches by absolute difference, as in MNIST-M (Ganin et al., 2016)
`printed`    printed digits in two font families, dark coloured ink on light coloured paper
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from PIL import Image

from common.datasets.embedded import glyphs
from common.datasets.labeled_images import LabeledImages

DOMAINS = ("mnist", "optdigits", "mnist-m", "printed")
CLASS_NAMES = tuple(str(digit) for digit in range(10))
SPLIT_SIZES = {"train": 400, "validation": 100, "test": 500}
"""The number of images in each split of each domain."""

CLIENT_FONTS = tuple(
    f"DejaVu{family}{face}"
    for family, faces in {
        "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
    }.items()
    for face in faces
)
"""The fonts of the domain `printed`; the public images use other fonts."""

_SIZE = sum(SPLIT_SIZES.values())


def mnist_rows(purpose: str) -> np.ndarray:
    """The rows of `glyphs.mnist_digits` for one purpose: `mnist`, `mnist-m`, `public` or `public-held-out`.

    The four sets are disjoint, so no public image shows a glyph that a client holds.
    """
    order = np.random.default_rng(0).permutation(5000)
    bounds = {"mnist": (0, _SIZE), "mnist-m": (_SIZE, 2 * _SIZE), "public": (2 * _SIZE, 4500)}
    bounds["public-held-out"] = (4500, 5000)
    start, stop = bounds[purpose]
    return order[start:stop]


def load(domain: str, fonts: tuple[str, ...] = CLIENT_FONTS) -> dict[str, LabeledImages]:
    """The train, validation and test images of one domain, uint8 (N, 3, 32, 32).

    fonts: the fonts of the domain `printed`; its labels do not depend on them.

    Raises
    ------
    ValueError: `domain` is not one of `DOMAINS`.
    """
    if domain not in DOMAINS:
        raise ValueError(f"the domain of embedded digits must be one of {', '.join(DOMAINS)}, got {domain!r}")
    images, labels = _draw(domain, fonts)
    splits, start = {}, 0
    for name, size in SPLIT_SIZES.items():
        rows = slice(start, start + size)
        splits[name] = LabeledImages(images[rows], labels[rows])
        start += size
    return splits


@cache
def _draw(domain: str, fonts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(DOMAINS.index(domain) + 1)
    sources: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
        "mnist": _mnist,
        "optdigits": _optdigits,
        "mnist-m": _mnist_m,
        "printed": partial(_printed, fonts=fonts),
    }
    pixels, labels = sources[domain](rng)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def _mnist(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _handwriting("mnist")


def _handwriting(purpose: str) -> tuple[np.ndarray, np.ndarray]:
    digits, labels = glyphs.mnist_digits()
    rows = mnist_rows(purpose)
    padded = np.pad(digits[rows], ((0, 0), (2, 2), (2, 2)))
    return np.repeat(padded[..., None], 3, axis=-1), labels[rows]


def _optdigits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    digits, labels = glyphs.optical_digits()
    rows = rng.permutation(len(labels))[:_SIZE]
    size = (glyphs.IMAGE_SIZE, glyphs.IMAGE_SIZE)
    enlarged = (Image.fromarray(digits[row]).resize(size, Image.Resampling.BILINEAR) for row in rows)
    large = np.stack([np.asarray(image) for image in enlarged])
    return np.repeat(large[..., None], 3, axis=-1), labels[rows]


def _mnist_m(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ink, labels = _handwriting("mnist-m")
    patches = np.stack([glyphs.photo_patch("flower", rng) for _ in labels])
    return np.abs(patches.astype(np.int16) - ink).astype(np.uint8), labels


def _printed(rng: np.random.Generator, fonts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.arange(_SIZE) % 10)
    return np.stack([_printed_image(int(label), rng, fonts) for label in labels]), labels


def _printed_image(digit: int, rng: np.random.Generator, fonts: tuple[str, ...]) -> np.ndarray:
    glyph = glyphs.printed_digit(digit, str(rng.choice(fonts)), int(rng.integers(40, 60)))
    shift = tuple(rng.integers(-7, 8, 2).tolist())
    glyph = glyph.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR, translate=shift)
    ink = np.asarray(glyph.resize((glyphs.IMAGE_SIZE, glyphs.IMAGE_SIZE), Image.Resampling.BOX), np.float32)[..., None]
    paper, color = rng.uniform(150, 255, 3), rng.uniform(0, 110, 3)
    return (paper + (color - paper) * ink / 255).astype(np.uint8)
