"""Grey textures for the backgrounds of public images."""

import numpy as np
from PIL import Image

from common.datasets.embedded.glyphs import IMAGE_SIZE

LOOKS = ("flat", "gradient", "stripes", "checks", "noise", "blobs")


def make_texture(look: str, rng: np.random.Generator) -> np.ndarray:
    """One of `LOOKS` at a random place, angle and scale: float64 (32, 32), about -1 to 1; `flat` is 0."""
    rows, columns = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / IMAGE_SIZE - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    if look == "gradient":
        return 2 * along
    if look == "stripes":
        return np.sin(2 * np.pi * along * rng.uniform(2, 7))
    if look == "checks":
        frequency = 2 * np.pi * rng.uniform(2, 5)
        return np.sign(np.sin(frequency * along) * np.sin(frequency * across))
    if look == "noise":
        return rng.normal(0, 0.6, (IMAGE_SIZE, IMAGE_SIZE))
    if look == "blobs":
        coarse = Image.fromarray(rng.normal(0, 1, (5, 5)).astype(np.float32))
        return np.asarray(coarse.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    return np.zeros((IMAGE_SIZE, IMAGE_SIZE))
