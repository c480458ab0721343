"""Small picture files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> Path:
    """A flat picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def draw_noise(path: Path, seed: int, size: tuple[int, int] = (16, 16)) -> Path:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def draw_classes(root: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> None:
    for name in names:
        for index in range(count):
            draw(root / name / f"{index}.png")
