"""Emoji as seven artists drew them: the raw material of the embedded emoji federation, and its split by concept.

`assets/emoji/render.py` made the sheets; `assets/emoji/LICENSES.md` names their sources. A concept is what an emoji
shows, whoever draws it.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.storage import installed

FOLDER = Path("common") / "datasets" / "embedded" / "assets" / "emoji"
TILE = 40
"""Pixels on a side of a drawing."""


@cache
def _listing() -> dict[str, Any]:
    listing: dict[str, Any] = json.loads((installed.find_installed(FOLDER) / "concepts.json").read_text())
    return listing


@cache
def _tiles(artist: str) -> dict[str, Image.Image]:
    """Concept -> drawing."""
    with Image.open(installed.find_installed(FOLDER) / f"{artist}.webp") as file:
        sheet = file.convert("RGBA")
    shown, columns = _listing()["sheets"][artist], sheet.width // TILE
    corners = ((index % columns * TILE, index // columns * TILE) for index in range(len(shown)))
    return {
        concept: sheet.crop((left, top, left + TILE, top + TILE))
        for concept, (left, top) in zip(shown, corners, strict=True)
    }


@cache
def list_concepts(artist: str, split: str, class_name: str) -> tuple[str, ...]:
    """What an artist drew for a class in `train`, `validation` or `test`: code points such as `1f431`."""
    known = _listing()["concepts"]
    return tuple(concept for concept in _listing()["sheets"][artist] if known[concept] == [class_name, split])


def read_drawing(artist: str, concept: str) -> Image.Image:
    """RGBA, 40 x 40."""
    return _tiles(artist)[concept]


def place_drawing(
    tile: Image.Image, rng: np.random.Generator, turn: float, scale: tuple[float, float], shift: float
) -> np.ndarray:
    """A drawing turned by up to `turn` degrees, shrunk to a share of the image in `scale` and moved by up to `shift`
    pixels: float (32, 32, 4), colours in [0, 255] and opacity in [0, 1]."""
    angle = np.deg2rad(rng.uniform(-turn, turn))
    enlarged = TILE / (32 * rng.uniform(*scale))
    matrix = enlarged * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.full(2, TILE / 2) - matrix @ (np.full(2, 16.0) + rng.uniform(-shift, shift, 2))
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    placed = tile.convert("RGBa").transform((32, 32), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    pixels = np.asarray(placed.convert("RGBA"), np.float32).copy()
    pixels[..., 3] /= 255
    return pixels


def paste_over(placed: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """A placed drawing (32, 32, 4) over a scene (32, 32, 3) or one colour (3,): uint8 (32, 32, 3)."""
    opacity = placed[..., 3:]
    return np.clip(scene + (placed[..., :3] - scene) * opacity, 0, 255).round().astype(np.uint8)
