"""The images of a folder as squares of one size: in memory, in a file of a cache, or decoded whenever they are read.

Every file is decoded once. The squares of a small folder stay in memory. Those of a larger one go into a file, which
later commands find again.
"""

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.datasets.readers.image_files import ImageError, Picture, printable_path, read_pictures, to_tensor
from common.datasets.readers.pictures import Found, Pictures, look_at
from common.datasets.readers.square_files import make_room, name_key, remove_former, remove_old
from common.storage.atomic import write_secret
from common.storage.images import ImageFile, Source
from common.telling import ToldError
from common.vision.preprocessing import PreprocessSpec

MOST_IN_MEMORY = 2**28
"""Bytes of squares that are kept in memory."""
FORMAT = 2


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
    owner: str = "",
) -> tuple[Source, Pictures]:
    """The squares, uint8 (N, 3, image_size, image_size), of the files that can be read, and what all of them are.

    Parameters
    ----------
    max_megapixels: the most million pixels of an image.
    cache: folder for the squares of many images; None keeps all in memory.
    most_gigabytes: the most GB (10**9 bytes) of squares in the cache.
    owner: what the files are all the images of; the squares of those that it had before are removed from the cache.
    """
    spec, shape = PreprocessSpec(image_size), torch.Size([len(paths), 3, image_size, image_size])

    def resize(picture: Picture) -> torch.Tensor:
        return spec.resize(to_tensor(picture.pixels))

    if cache is not None:
        key = _key(paths, image_size, max_megapixels, owner)
        remove_old(cache)
        remove_former(cache, key)
    if cache is None or shape.numel() <= MOST_IN_MEMORY:
        squares = torch.empty(shape, dtype=torch.uint8)
        pictures = look_at(paths, max_megapixels, resize, squares.__setitem__)
        return squares[: len(pictures.found)], pictures
    doubt = ""
    for told in sorted(cache.glob(f"{key}-*.json")):
        if (kept := _read_description(told, paths, shape)) is not None:
            return kept
    try:
        if not (doubt := make_room(cache, shape.numel(), most_gigabytes)):
            # Nobody else writes this file, so that whoever reads it reads what its description says.
            file = cache / f"{key}-{secrets.token_hex(4)}.uint8"
            return _write_file(file, paths, shape, max_megapixels, resize)
    except OSError as error:
        doubt = f"the folder {printable_path(cache)} cannot be written: {error.strerror}"
    states = {path: _state(path) for path in paths}
    pictures = look_at(paths, max_megapixels)
    files = tuple(pictures.found)
    pictures.doubts.append(f"every epoch decodes all images again, which is slow: {doubt}")
    return PictureFiles(files, tuple(states[path] for path in files), image_size, max_megapixels), pictures


def _key(paths: list[Path], image_size: int, max_megapixels: float, owner: str) -> str:
    """Of all that the squares depend on (see `square_files.py`); it opens no file."""
    settings = [FORMAT, image_size, max_megapixels, *(version(name) for name in ("pillow", "torch", "torchvision"))]
    content = hashlib.sha256()
    for path in paths:
        content.update(os.fsencode(path) + f"\0{_state(path)}\n".encode())
    return name_key(owner, content.hexdigest(), json.dumps(settings))


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "gone"
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def _read_description(told: Path, paths: list[Path], shape: torch.Size) -> tuple[ImageFile, Pictures] | None:
    """The squares and what they are, if the file beside the description holds them."""
    try:
        known = json.loads(told.read_text(encoding="utf-8"))
        found = {paths[number]: Found(tuple(size), *rest) for number, size, *rest in known["found"]}
        unreadable = {paths[number]: why for number, why in known["unreadable"]}
        file, checksums = told.with_suffix(".uint8"), torch.tensor(known["checksums"], dtype=torch.int64)
        squares = ImageFile(file, torch.Size([len(found), *shape[1:]]), checksums)
        is_whole = file.stat().st_size == squares.shape.numel() and len(checksums) == len(found)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    with suppress(OSError):
        os.utime(file)
    return (squares, Pictures(found, unreadable)) if is_whole else None


def _write_file(
    file: Path, paths: list[Path], shape: torch.Size, max_megapixels: float, resize: Callable[[Picture], torch.Tensor]
) -> tuple[ImageFile, Pictures]:
    """The squares in a new file, and their description beside it. Where an image could not be read for now there is
    none, so that a later command tries again."""
    print(f"decoding {len(paths)} images into {printable_path(file.parent)}, once", flush=True)
    checksums = []
    try:
        # These are somebody's images: nobody else on this machine may read them.
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:

            def take(_: int, square: torch.Tensor) -> None:
                pixels = square.contiguous().numpy().data
                checksums.append(zlib.crc32(pixels))
                out.write(pixels)

            pictures = look_at(paths, max_megapixels, resize, take)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise
    squares = ImageFile(file, torch.Size([len(pictures.found), *shape[1:]]), torch.tensor(checksums, dtype=torch.int64))
    if pictures.is_lasting:
        numbers = {path: number for number, path in enumerate(paths)}
        known = {
            "checksums": checksums,
            "found": [[numbers[path], each.size, each.has_more_pages, each.grey_bits, each.checksum]
                      for path, each in pictures.found.items()],
            "unreadable": [[numbers[path], why] for path, why in pictures.unreadable.items()],
        }  # fmt: skip
        write_secret(file.with_suffix(".json"), json.dumps(known).encode())
    return squares, pictures
