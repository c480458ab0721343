"""Reading one image file of any size and mode as RGB pixels."""

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, ImageOps

from common.config.node import MAX_MEGAPIXELS
from common.processes import num_processors

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".webp", ".avif", ".tif", ".tiff",
    ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx",
})  # fmt: skip
MORE_AT_REDUCED_SIZE = 4
"""A picture whose format can be decoded at half its size (JPEG) may have this many times the pixels."""
AHEAD = 8
"""Pictures for each processor core that are decoded before they are asked for."""
PIXELS_AT_ONCE = 100_000_000
"""Pixels of the pictures that are decoded at the same time; each takes up to 17 bytes."""
GREY_BITS = (8, 10, 12, 14, 16)
"""Bits per pixel of grey pictures of medicine and of cameras, which are stored in 16."""


class ImageError(ValueError):
    """The file gives no image; the message says why, and the caller adds the file's name."""


class NotNowError(ImageError):
    """The file cannot be read now, and may be read another time."""


@dataclass(frozen=True)
class Picture:
    """What one file shows."""

    pixels: np.ndarray
    """RGB, uint8 (h, w, 3)."""
    size: tuple[int, int]
    """Width and height in pixels of the upright picture in the file; `pixels` has fewer if it was decoded reduced."""
    has_more_pages: bool
    """Whether the file holds other pages or frames, which are not read."""
    grey_bits: int | None
    """Bits per pixel as which grey values of more than 8 bits were read; None for other pictures."""


def read_image(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> "torch.Tensor":
    """The image as RGB, uint8 (3, h, w); see `read_picture`."""
    return to_tensor(read_picture(path, max_megapixels).pixels)


def to_tensor(pixels: np.ndarray) -> "torch.Tensor":
    """RGB, uint8 (3, h, w), from (h, w, 3). Code that only looks at pictures needs no PyTorch."""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_picture(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """Read a file's picture. It is turned upright by its EXIF tag, and transparent pixels are laid over white.

    Grey values of up to 16 bits are read by the least of 8, 10, 12, 14 and 16 bits that holds them, and keep the upper
    8 of these. An animation or a file of several pages gives its first picture. A JPEG of more than 90 million pixels
    is decoded at a half, a quarter or an eighth of its width and height.

    max_megapixels: the most million pixels; of a JPEG four times as many.

    Raises
    ------
    ImageError: the file is no image, is broken or truncated, or has too many pixels.
    """
    with _any_size:
        return _decode(path, max_megapixels)


def read_pictures(
    paths: Iterable[Path], max_megapixels: float, use: Callable[[Picture], T]
) -> Iterator[T | ImageError]:
    """What `use` makes of each file's picture, in order; the error of a file that gives none.

    A thread for each processor core decodes, and calls `use`. Pictures of no more than `PIXELS_AT_ONCE` are in memory
    at once, or one that is larger.
    """
    room = _Room(PIXELS_AT_ONCE)

    def read(path: Path) -> T | ImageError:
        with ExitStack() as taken:
            try:
                picture = _decode(path, max_megapixels, lambda pixels: taken.enter_context(room.take(pixels)))
            except ImageError as error:
                return error
            return use(picture)

    Image.preinit()
    count = num_processors()
    with _any_size, ThreadPoolExecutor(count) as threads:
        coming: deque[Future[T | ImageError]] = deque()
        for path in paths:
            coming.append(threads.submit(read, path))
            if len(coming) > AHEAD * count:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class _Room:
    """Pixels that threads may decode at the same time. A thread that wants more than all waits until none has any."""

    def __init__(self, pixels: int):
        self.most = self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        wanted = min(pixels, self.most)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= wanted)
            self.free -= wanted
        try:
            yield
        finally:
            with self.changed:
                self.free += wanted
                self.changed.notify_all()


class _AnySize:
    """Pillow neither refuses nor warns of large pictures within, for `_limit_size` does. It holds for all threads."""

    def __init__(self) -> None:
        self.lock, self.users, self.outside = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                self.outside.callback(setattr, Image, "MAX_IMAGE_PIXELS", before)
                self.outside.enter_context(warnings.catch_warnings(action="ignore"))
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.outside.close()


_any_size = _AnySize()


def _decode(path: Path, max_megapixels: float, on_size: Callable[[int], object] = lambda pixels: None) -> Picture:
    """on_size: is told the number of pixels before they are decoded."""
    try:
        with Image.open(path) as image:
            size = image.size
            _limit_size(image, max_megapixels)
            on_size(image.size[0] * image.size[1])
            more = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
            upright = ImageOps.exif_transpose(image)
            bits = _grey_bits(upright) if upright.mode.startswith("I") else None
            pixels = np.array(_as_rgb(upright, bits))
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("it is no image that can be read") from None
    except MemoryError:
        raise NotNowError("there is no memory to decode it") from None
    except OSError as error:  # Of a broken file, Pillow raises one without a number.
        if error.errno is not None:
            raise NotNowError(f"it cannot be read ({error.strerror})") from None
        raise ImageError(f"it is broken ({error})") from None
    except Exception as error:  # Pillow's decoders raise many types of error for a broken file.
        raise ImageError(f"it is broken ({str(error) or type(error).__name__})") from None
    height, width = pixels.shape[:2]
    if (width > height) != (size[0] > size[1]):
        size = size[::-1]
    return Picture(pixels, size, more, bits)


def _limit_size(image: Image.Image, max_megapixels: float) -> None:
    """Set a large picture to be decoded at reduced size, where its format can.

    Raises
    ------
    ImageError: it has too many pixels.
    """
    width, height = image.size
    can_reduce = image.format in ("JPEG", "MPO")
    most = round(max_megapixels * 1e6) * (MORE_AT_REDUCED_SIZE if can_reduce else 1)
    if width * height > most:
        raise ImageError(
            f"it has {width * height:,} pixels, more than {most:,}, and is not read, as it may be a decompression "
            "bomb: allow it by --max-megapixels, or 'max-megapixels' in the node config"
        )
    if can_reduce and width * height > MAX_MEGAPIXELS * 1e6:
        factor = next((f for f in (2, 4) if width * height <= MAX_MEGAPIXELS * 1e6 * f * f), 8)
        image.draft(None, (width // factor, height // factor))


def _grey_bits(image: Image.Image) -> int:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError("its grey values do not fit into 16 bits: save it with 8 or 16 bits per pixel")
    return next(bits for bits in GREY_BITS if values.max() < 1 << bits)


def _as_rgb(image: Image.Image, grey_bits: int | None) -> Image.Image:
    if grey_bits:
        return Image.fromarray((np.asarray(image) >> (grey_bits - 8)).astype(np.uint8)).convert("RGB")
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
