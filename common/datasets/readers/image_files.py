"""Reading one image file of any size and mode as RGB pixels, and finding the image files in a folder."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image, ImageOps

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
LITTER = frozenset({"thumbs.db", "desktop.ini"})


class ImageError(ValueError):
    """The file gives no image; the message says why, and the caller adds the file's name."""


def read_image(path: Path) -> torch.Tensor:
    """The image as RGB, uint8 (3, h, w).

    It is turned upright by its EXIF tag, transparent pixels are laid over white, and 16-bit grey values keep their
    upper 8 bits. An animation or a file of several pages gives its first image.

    Raises
    ------
    ImageError: the file is no image, is broken or truncated, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels and is not read, as it may be a decompression bomb"
        ) from None
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("it is no image that can be read") from None
    except Exception as error:  # Pillow's decoders raise many types of error for a broken file.
        raise ImageError(f"it is broken ({str(error) or type(error).__name__})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError("its grey values do not fit into 16 bits: save it with 8 or 16 bits per pixel")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ImageError("its floating-point grey values are not in [0, 1]: save it with 8 or 16 bits per pixel")
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def is_image(path: PurePath) -> bool:
    """Whether the path has the suffix of an image file."""
    return path.suffix.lower() in SUFFIXES


def printable_path(path: Path) -> str:
    """The path as text that can be printed, even if its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def list_subfolders(folder: Path) -> list[Path]:
    """The folder's sub-folders, sorted, without hidden ones.

    Raises
    ------
    OSError: the folder cannot be listed.
    """
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def walk_images(folder: Path, problems: list[str]) -> Iterator[Path]:
    """Yield the image files at any depth below `folder`.

    Other files, and links that lead in a circle, become `problems`.
    """
    waiting: list[tuple[Path, frozenset[str]]] = [(folder, frozenset())]
    while waiting:
        current, above = waiting.pop()
        here = os.path.realpath(current)
        above |= {here}
        try:
            paths = sorted(current.iterdir())
        except OSError as error:
            problems.append(f"{printable_path(current)} cannot be listed ({error.strerror})")
            continue
        others: Counter[str] = Counter()
        for path in paths:
            if path.name.startswith(".") or path.name.lower() in LITTER:
                continue
            if os.path.isdir(path):
                if (target := os.path.realpath(path)) in above or here.startswith(target + os.sep):
                    problems.append(f"{printable_path(path)} is a link to a folder that contains it")
                else:
                    waiting.append((path, above))
            elif not is_image(path):
                others[path.suffix.lower() or "without suffix"] += 1
            elif os.path.isfile(path) or not os.path.exists(path):
                yield path
            else:
                problems.append(f"{printable_path(path)} is not a regular file")
        problems += [
            f"{printable_path(current)}: {count} files {kind}, not read as images" for kind, count in others.items()
        ]
