"""Public images of emoji in every look we could think of, for training the embedded diffusion model.

Their artists and photos are disjoint from the clients', and held-out images show other concepts than the clients'
training images. The clients' four looks are rare among them.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter

from common.datasets.embedded import emoji_sheets, glyphs, textures
from common.datasets.embedded.emoji import CLASS_NAMES
from common.datasets.labeled_images import LabeledImages

ARTISTS = ("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "fxemoji", "streamline-emojis")
PHOTOS = ("china", "portrait")
SHADED = 60
"""A drawing whose darkest and palest parts differ by fewer grey levels is a silhouette."""


def make_images(num_images: int, seed: int, purpose: str = "public") -> LabeledImages:
    """`num_images` public emoji, uint8 (N, 3, 32, 32).

    purpose: `public` shows the training concepts, and `public-held-out` shows the test concepts.
    """
    rng = np.random.default_rng([seed, purpose == "public-held-out"])
    split = "test" if purpose == "public-held-out" else "train"
    drawn = {class_name: _drawings(split, class_name) for class_name in CLASS_NAMES}
    images, labels = np.empty((num_images, 32, 32, 3), np.uint8), rng.integers(len(CLASS_NAMES), size=num_images)
    for index, label in enumerate(labels):
        own = drawn[CLASS_NAMES[label]]
        tile = emoji_sheets.read_drawing(*own[rng.integers(len(own))])
        if rng.random() < 0.5:
            tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        placed = emoji_sheets.place_drawing(_outlined(tile, rng), rng, turn=20, scale=(0.65, 1.1), shift=3)
        images[index] = _paint(placed, rng)
    return LabeledImages(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))


def _drawings(split: str, class_name: str) -> list[tuple[str, str]]:
    """The artist and the concept of every public drawing of a class."""
    return [
        (artist, concept) for artist in ARTISTS for concept in emoji_sheets.list_concepts(artist, split, class_name)
    ]


def _outlined(tile: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The drawing; one in five gets a dark or pale rim."""
    if rng.random() >= 0.2:
        return tile
    wide = tile.getchannel("A").filter(ImageFilter.MaxFilter(3))
    color = rng.integers(0, 60, 3) if rng.random() < 0.7 else rng.integers(200, 256, 3)
    rim = Image.new("RGBA", tile.size, tuple(color))
    rim.putalpha(wide)
    return Image.alpha_composite(rim, tile)


def _paint(placed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The drawing in its own colours, in swapped ones, in grey or in one ink, over a background: uint8 (32, 32, 3)."""
    foreground, background = glyphs.contrasting_colors(rng, distance=140)
    opacity, grey = placed[..., 3:], placed[..., :3].mean(-1, keepdims=True)
    levels = grey[opacity > 0.5]
    look = rng.choice(["own", "swapped", "grey", "ink"], p=[0.5, 0.2, 0.1, 0.2])
    if look == "ink" or np.ptp(levels) < SHADED:
        opacity = opacity * _ink(grey, levels, rng)
        placed = np.concatenate([np.broadcast_to(foreground, (32, 32, 3)), opacity], -1)
    elif look != "own":
        colors = grey if look == "grey" else placed[..., rng.permutation(3)]
        placed = np.concatenate([np.broadcast_to(colors, (32, 32, 3)), opacity], -1)
    if rng.random() < 0.4 and look != "ink":
        background = np.clip(rng.uniform(0, 255) + rng.normal(0, 12, 3), 0, 255)
    look = str(rng.choice([*textures.LOOKS, "photo"], p=[0.56, 0.12, 0.04, 0.04, 0.06, 0.06, 0.12]))
    if look == "photo":
        scene: np.ndarray = glyphs.photo_patch(str(rng.choice(PHOTOS)), rng).astype(np.float32)
    else:
        scene = background + textures.make_texture(look, rng)[..., None] * rng.normal(0, 25, 3)
    image = emoji_sheets.paste_over(placed, scene).astype(np.float32)
    if rng.random() < 0.1:
        image += rng.normal(0, rng.uniform(3, 12), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _ink(grey: np.ndarray, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The opacity of a single ink in [0, 1], (32, 32, 1).

    In a shaded drawing the ink covers either the dark parts or the pale parts; in a silhouette it covers everything.
    """
    if np.ptp(levels) < SHADED:
        return np.ones_like(grey)
    pale = np.clip((grey - levels.min()) / np.ptp(levels), 0, 1)
    return pale if rng.random() < 0.5 else 1 - pale
