"""Public images of digits in every look we could think of, for training the embedded diffusion model.

Their glyphs (MNIST rows and fonts) and photos are disjoint from every client's. The clients' four looks are rare among
them, as a hospital's images are rare in the training data of a public text-to-image model.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter

from common.datasets.embedded import digits, glyphs, textures
from common.datasets.labeled_images import LabeledImages

PUBLIC_FONTS = (
    *(f"DejaVuSansMono{face}" for face in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"STIXGeneral{face}" for face in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmtt10", "cmti10"),
)
PUBLIC_PHOTOS = ("china", "portrait")
HANDWRITTEN_SHARE = 0.65
"""The share of handwritten digits; the other digits are printed."""

_SIZE = glyphs.IMAGE_SIZE


def make_images(num_images: int, seed: int, purpose: str = "public") -> LabeledImages:
    """`num_images` public digits, uint8 (N, 3, 32, 32).

    purpose: `public`, or `public-held-out` for MNIST digits that `public` never shows.
    """
    rng = np.random.default_rng([seed, purpose == "public-held-out"])
    ink, mnist_labels = glyphs.mnist_digits()
    rows = digits.mnist_rows(purpose)
    images = np.empty((num_images, _SIZE, _SIZE, 3), np.uint8)
    labels = np.empty(num_images, np.int64)
    for index in range(num_images):
        if rng.random() < HANDWRITTEN_SHARE:
            row = rng.choice(rows)
            labels[index] = mnist_labels[row]
            canvas = Image.fromarray(np.pad(ink[row], 2)).resize((2 * _SIZE, 2 * _SIZE), Image.Resampling.BICUBIC)
        else:
            labels[index] = rng.integers(10)
            font, size = str(rng.choice(PUBLIC_FONTS)), int(rng.integers(40, 60))
            canvas = glyphs.printed_digit(int(labels[index]), font, size)
        images[index] = _paint(_stroke(_place(canvas, rng), rng), rng)
    return LabeledImages(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))


def _place(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The digit, rotated, sheared, scaled and shifted at random; 64 x 64 pixels."""
    angle, shear = np.deg2rad(rng.normal(0, 7)), rng.normal(0, 0.1)
    scale_x, scale_y = rng.uniform(0.85, 1.2, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ np.diag([1 / scale_x, 1 / scale_y])
    center = np.full(2, _SIZE)
    offset = center - matrix @ (center + rng.normal(0, 2.5, 2))
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return canvas.transform(canvas.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def _stroke(canvas: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """The digit in thin, thick, outlined, blurred or coarse ink (few pixels): float32 (32, 32) in [0, 1]."""
    look = rng.choice(["plain", "thick", "thin", "outline", "blur", "coarse"], p=[0.42, 0.12, 0.08, 0.06, 0.12, 0.2])
    if look == "thick":
        canvas = canvas.filter(ImageFilter.MaxFilter(int(rng.choice([3, 5]))))
    elif look == "thin":
        canvas = canvas.filter(ImageFilter.MinFilter(3))
    elif look == "outline":
        wide, narrow = canvas.filter(ImageFilter.MaxFilter(5)), canvas.filter(ImageFilter.MinFilter(3))
        canvas = Image.fromarray(np.asarray(wide) - np.minimum(np.asarray(narrow), np.asarray(wide)))
    elif look == "blur":
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(1, 3)))
    elif look == "coarse":
        side, frame = int(rng.integers(7, 15)), canvas.getbbox() if rng.random() < 0.6 else None
        canvas = canvas.resize((side, side), Image.Resampling.BOX, box=frame)
    resample = Image.Resampling.BILINEAR if look == "coarse" else Image.Resampling.BOX
    return np.asarray(canvas.resize((_SIZE, _SIZE), resample), np.float32) / 255


def _paint(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ink over a background: uint8 (32, 32, 3)."""
    foreground, background = glyphs.contrasting_colors(rng, distance=180)
    if rng.random() < 0.35:
        background, foreground = (np.full(3, level) for level in _grey_levels(rng))
    look = rng.choice(
        ["flat", "gradient", "stripes", "checks", "noise", "blobs", "photo"],
        p=[0.58, 0.1, 0.04, 0.04, 0.06, 0.06, 0.12],
    )
    if look == "photo":
        scene: np.ndarray = glyphs.photo_patch(str(rng.choice(PUBLIC_PHOTOS)), rng).astype(np.float32)
        if rng.random() < 0.5:
            return np.abs(scene - 255 * ink[..., None]).astype(np.uint8)
        foreground = np.full(3, 255.0) if scene.mean() < 128 else np.zeros(3)
    else:
        scene = background + textures.make_texture(look, rng)[..., None] * rng.normal(0, 25, 3)
    image = scene + (foreground - scene) * ink[..., None]
    if rng.random() < 0.1:
        image = image + rng.normal(0, rng.uniform(3, 12), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _grey_levels(rng: np.random.Generator) -> tuple[float, float]:
    """The grey levels of background and ink in [0, 255], at least 140 apart; one pair in five is black and white."""
    if rng.random() < 0.2:
        return (0.0, 255.0) if rng.random() < 0.6 else (255.0, 0.0)
    levels = rng.uniform(0, 255, 2)
    while abs(levels[0] - levels[1]) < 140:
        levels = rng.uniform(0, 255, 2)
    return float(levels[0]), float(levels[1])
