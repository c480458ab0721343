"""Emoji as nine sets of seven artists show them: the material of the embedded emoji, and its split by concept.

`assets/emoji/render.py` made the sheets, and `assets/emoji/LICENSES.md` names their sources. A concept is what an emoji
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
"""The side in pixels of a drawing."""


@cache
def _listing() -> dict[str, Any]:
    file = installed.find_installed(FOLDER / "concepts.json")
    listing: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return listing


@cache
def _tiles(artist: str) -> dict[str, Image.Image]:
    """Concept -> drawing, of one artist."""
    with Image.open(installed.find_installed(FOLDER / f"{artist}.webp")) as file:
        sheet = file.convert("RGBA")
    shown, columns = _listing()["sheets"][artist], sheet.width // TILE
    corners = ((index % columns * TILE, index // columns * TILE) for index in range(len(shown)))
    return {
        concept: sheet.crop((left, top, left + TILE, top + TILE))
        for concept, (left, top) in zip(shown, corners, strict=True)
    }


@cache
def list_concepts(artist: str, split: str, class_name: str) -> tuple[str, ...]:
    """The concepts of a class that an artist drew in the split `train`, `validation` or `test`.

    They are code points such as `1f431`.
    """
    known = _listing()["concepts"]
    return tuple(concept for concept in _listing()["sheets"][artist] if known[concept] == [class_name, split])


def read_drawing(artist: str, concept: str) -> Image.Image:
    """An artist's drawing of a concept: RGBA, 40 x 40 pixels."""
    return _tiles(artist)[concept]


def place_drawing(
    tile: Image.Image, rng: np.random.Generator, turn: float, scale: tuple[float, float], shift: float
) -> np.ndarray:
    """The drawing, rotated, scaled and moved at random: float32 (32, 32, 4), colours in [0, 255] and opacity in [0, 1].

    turn: the largest rotation in degrees. scale: the smallest and the largest share of the image. shift: the largest
    shift in pixels.
    """
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
    """A placed drawing (32, 32, 4) in front of a scene (32, 32, 3) or of one colour (3,): uint8 (32, 32, 3)."""
    opacity = placed[..., 3:]
    return np.clip(scene + (placed[..., :3] - scene) * opacity, 0, 255).round().astype(np.uint8)
