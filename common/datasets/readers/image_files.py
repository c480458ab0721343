"""One image file, of any size and mode, as RGB pixels; and the image files below a folder."""

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
    """A file that gives no image; the message says why and leaves the file's name to the caller."""


def read_image(path: Path) -> torch.Tensor:
    """uint8 (3, h, w): turned upright by its EXIF tag, transparency over white, 16-bit grey by its leading 8 bits.

    Of an animation or a multi-page file the first picture.

    Raises
    ------
    ImageError: no image, a broken or truncated one, or one with more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"it unpacks to more than {Image.MAX_IMAGE_PIXELS:,} pixels and is refused as a decompression bomb"
        ) from None
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("it is no image that can be read") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on bytes that lie about themselves.
        raise ImageError(f"it is broken ({str(error) or type(error).__name__})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError("its grey values do not fit 16 bits: save it with 8 or 16 bits a pixel")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ImageError("its floating grey values leave [0, 1]: save it with 8 or 16 bits a pixel")
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def is_image(path: PurePath) -> bool:
    return path.suffix.lower() in SUFFIXES


def printable_path(path: Path) -> str:
    """A path for the user, also when its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def list_subfolders(folder: Path) -> list[Path]:
    """Sorted; hidden ones left out.

    Raises
    ------
    OSError: the folder cannot be listed.
    """
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def walk_images(folder: Path, problems: list[str]) -> Iterator[Path]:
    """Image files at any depth; what else lies there becomes a problem, as do links that run in a circle."""
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
                    problems.append(f"{printable_path(path)} links to a folder that holds it")
                else:
                    waiting.append((path, above))
            elif not is_image(path):
                others[path.suffix.lower() or "without suffix"] += 1
            elif os.path.isfile(path) or not os.path.exists(path):
                yield path
            else:
                problems.append(f"{printable_path(path)} is no regular file")
        problems += [
            f"{printable_path(current)}: {count} files {kind}, not read as images" for kind, count in others.items()
        ]
