"""The images of a folder as squares of one size: in memory, in a file of a cache, or decoded whenever they are read.

Every file is decoded once. The squares of a small folder stay in memory. Those of a larger one go into a file, which
later commands find again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import time

import torch

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.datasets.readers.image_files import ImageError, Picture, printable_path, read_pictures, to_tensor
from common.datasets.readers.pictures import Found, Pictures, look_at
from common.storage.atomic import write_secret
from common.storage.images import ImageFile, Source
from common.telling import ToldError
from common.vision.preprocessing import PreprocessSpec

MOST_IN_MEMORY = 2**28
"""Bytes of squares that are kept in memory."""
SECONDS_KEPT = 30 * 86400
"""After so long without use, a file of squares is removed."""
SECONDS_IN_USE = 86400
"""A file of squares that was read within this time may be read again, so it stays."""
SPARE_BYTES = 10**9
"""Of the disk, which are left free."""
FORMAT = 1


@dataclass(frozen=True)
class PictureFiles:
    """Image files that are decoded whenever they are read."""

    paths: tuple[Path, ...]
    states: tuple[str, ...]
    """Size and time of each file when it was read first."""
    image_size: int
    max_megapixels: float

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self.paths), 3, self.image_size, self.image_size])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, image_size, image_size) of rows int64 (B,).

        Raises
        ------
        ToldError: a file is not as it was.
        """
        numbers, spec = rows.tolist(), PreprocessSpec(self.image_size)
        paths = [self.paths[number] for number in numbers]
        squares = read_pictures(paths, self.max_megapixels, lambda picture: spec.resize(to_tensor(picture.pixels)))
        pixels = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        for row, (number, square) in enumerate(zip(numbers, squares, strict=True)):
            path = self.paths[number]
            if isinstance(square, ImageError) or _state(path) != self.states[number]:
                raise ToldError(
                    f"{printable_path(path)} was changed or removed while it was in use: leave the folder as it is "
                    "until the work ends, and start again",
                    "an image was changed or removed while it was in use",
                )
            pixels[row] = square
        return pixels


def read_squares(
    paths: list[Path],
    image_size: int,
    max_megapixels: float = MAX_MEGAPIXELS,
    cache: Path | None = None,
    most_gigabytes: float = IMAGE_GIGABYTES,
) -> tuple[Source, Pictures]:
    """The squares, uint8 (N, 3, image_size, image_size), of the files that can be read, and what all of them are.

    Parameters
    ----------
    max_megapixels: the most million pixels of an image.
    cache: folder for the squares of many images; None keeps all in memory.
    most_gigabytes: the most GB (10**9 bytes) of squares in the cache.
    """
    spec, shape = PreprocessSpec(image_size), torch.Size([len(paths), 3, image_size, image_size])

    def resize(picture: Picture) -> torch.Tensor:
        return spec.resize(to_tensor(picture.pixels))

    if cache is None or shape.numel() <= MOST_IN_MEMORY:
        squares = torch.empty(shape, dtype=torch.uint8)
        pictures = look_at(paths, max_megapixels, resize, squares.__setitem__)
        return squares[: len(pictures.found)], pictures
    file = cache / f"{_key(paths, image_size, max_megapixels)}.uint8"
    kept, doubt = _read_description(file, paths, shape), ""
    if not kept:
        try:
            if not (doubt := _make_room(cache, shape.numel(), most_gigabytes)):
                kept = _write_file(file, paths, max_megapixels, resize)
        except OSError as error:
            doubt = f"the folder {printable_path(cache)} cannot be written: {error.strerror}"
    if kept:
        return ImageFile(file, torch.Size([len(kept.found), *shape[1:]])), kept
    states = {path: _state(path) for path in paths}
    pictures = look_at(paths, max_megapixels)
    files = tuple(pictures.found)
    pictures.doubts.append(f"every epoch decodes all images again, which is slow: {doubt}")
    return PictureFiles(files, tuple(states[path] for path in files), image_size, max_megapixels), pictures


def _key(paths: list[Path], image_size: int, max_megapixels: float) -> str:
    """Of all that the squares depend on; it opens no file."""
    settings = [FORMAT, image_size, max_megapixels, *(version(name) for name in ("pillow", "torch", "torchvision"))]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for path in paths:
        digest.update(os.fsencode(path) + f"\0{_state(path)}\n".encode())
    return digest.hexdigest()[:32]


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "gone"
    return f"{state.st_size} {state.st_mtime_ns}"


def _read_description(file: Path, paths: list[Path], shape: torch.Size) -> Pictures | None:
    """What the squares in a file are, if they were written before."""
    try:
        told = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        found = {paths[number]: Found(tuple(size), *known) for number, size, *known in told["found"]}
        unreadable = {paths[number]: why for number, why in told["unreadable"]}
        is_whole = file.stat().st_size == len(found) * shape[1:].numel()
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    with suppress(OSError):
        os.utime(file)
    return Pictures(found, unreadable) if is_whole else None


def _write_file(
    file: Path, paths: list[Path], max_megapixels: float, resize: Callable[[Picture], torch.Tensor]
) -> Pictures:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    print(f"decoding {len(paths)} images into {printable_path(file.parent)}, once", flush=True)
    try:
        # These are somebody's images: nobody else on this machine may read them.
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            pictures = look_at(
                paths, max_megapixels, resize, lambda _, square: out.write(square.contiguous().numpy().data)
            )
            out.flush()
            os.fsync(out.fileno())
        os.replace(unfinished, file)
    finally:
        with suppress(OSError):
            unfinished.unlink()
    numbers = {path: number for number, path in enumerate(paths)}
    told = {
        "found": [[numbers[path], each.size, each.has_more_pages, each.grey_bits, each.checksum]
                  for path, each in pictures.found.items()],
        "unreadable": [[numbers[path], why] for path, why in pictures.unreadable.items()],
    }  # fmt: skip
    write_secret(file.with_suffix(".json"), json.dumps(told).encode())
    return pictures


def _make_room(cache: Path, needed: int, most_gigabytes: float) -> str:
    """Remove what was not used for long, and the oldest until `needed` bytes fit; a sentence if they do not."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in cache.glob(".*.part"):
        if time() - left.stat().st_mtime > SECONDS_IN_USE:
            left.unlink()
    files = sorted(cache.glob("*.uint8"), key=lambda file: file.stat().st_mtime)
    sizes = {file: file.stat().st_size for file in files}
    for file in files:
        unused = time() - file.stat().st_mtime
        too_full = sum(sizes.values()) + needed > most_gigabytes * 1e9
        if unused > SECONDS_KEPT or (too_full and unused > SECONDS_IN_USE):
            for each in (file.with_suffix(".json"), file):
                each.unlink(missing_ok=True)
            del sizes[file]
    if (total := sum(sizes.values()) + needed) > most_gigabytes * 1e9:
        return (
            f"with {needed / 1e9:.1f} GB of decoded images {printable_path(cache)} would hold {total / 1e9:.1f} GB, "
            f"more than the {most_gigabytes:g} of 'image-gigabytes': raise it"
        )
    if (free := shutil.disk_usage(cache).free) < needed + SPARE_BYTES:
        return (
            f"decoded images need {needed / 1e9:.1f} GB in {printable_path(cache)}, but {free / 1e9:.1f} GB are free, "
            f"of which {SPARE_BYTES / 1e9:g} stays free: make room there, or choose a cache on a larger disk"
        )
    return ""
