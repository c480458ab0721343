"""Images of one size, in memory or in a file, of which a reader takes some rows at a time.

An `ImageView` names images without holding them: views of one set share it, and a view of a file takes no memory.
"""

import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch

from common.telling import ToldError

HASHED_AT_ONCE = 256
"""Images."""


@dataclass(frozen=True)
class ImageFile:
    """uint8 images laid end to end in a file, which stays open: whoever removes or replaces it changes nothing here."""

    path: Path
    shape: torch.Size
    """(N, 3, h, w)"""
    checksums: torch.Tensor | None = field(default=None, compare=False, repr=False)
    """crc32 of each image, int64 (N,); None: they are not checked."""

    def __post_init__(self) -> None:
        """
        Raises
        ------
        OSError: there is no such file.
        """
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, file.close)
        object.__setattr__(self, "_reading", (file, threading.Lock()))

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFile, (self.path, self.shape, self.checksums)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, h, w) of rows int64 (B,), read from the file.

        They are read, not mapped: mapped pages would count as this process's memory.

        Raises
        ------
        OSError: the file is shorter than it was.
        ToldError: an image is not what was written.
        """
        file, lock = self._reading  # type: ignore[attr-defined]
        found, size = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8), prod(self.shape[1:])
        with lock:
            for row, pixels in zip(rows.tolist(), found.numpy(), strict=True):
                file.seek(row * size)
                if file.readinto(pixels) != size:
                    raise OSError(f"{self.path} must hold {len(self)} images, but ends before number {row + 1}")
                if self.checksums is not None and zlib.crc32(pixels.data) != self.checksums[row]:
                    raise ToldError(
                        f"image {row + 1} in {self.path} is damaged: remove this file, and start again",
                        "the cache of decoded images is damaged",
                    )
        return found


class StoredImages(Protocol):
    """Images that are not in memory; a tensor gives its rows in the same way."""

    @property
    def shape(self) -> torch.Size:
        """(N, 3, h, w)"""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, h, w) of rows int64 (B,)."""


Source = torch.Tensor | StoredImages


@dataclass(frozen=True)
class ImageView:
    """Some images of one or several sources, in any order, perhaps more than once."""

    sources: tuple[Source, ...]
    """Each of uint8 (N, 3, h, w), of one size."""
    rows: torch.Tensor
    """int64 (N,), numbers of the images in the sources laid end to end."""

    @classmethod
    def of(cls, images: "Images") -> "ImageView":
        if isinstance(images, ImageView):
            return images
        return cls((images,), torch.arange(len(images)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """(N, 3, h, w)"""
        return torch.Size([len(self.rows), *self.sources[0].shape[1:]])

    @property
    def num_bytes(self) -> int:
        """Of its images, were they in memory."""
        return prod(self.shape)

    @property
    def is_in_memory(self) -> bool:
        return all(isinstance(source, torch.Tensor) for source in self.sources)

    def choose(self, rows: torch.Tensor) -> "ImageView":
        """A view of some of these images: rows int64 (B,), or bool (N,)."""
        return ImageView(self.sources, self.rows[rows])

    def join(self, other: "Images") -> "ImageView":
        """A view of these images and then the others."""
        other, before = ImageView.of(other), sum(map(len, self.sources))
        return ImageView(self.sources + other.sources, torch.cat([self.rows, before + other.rows]))

    def read(self) -> torch.Tensor:
        """The images, uint8 (N, 3, h, w)."""
        if len(self.sources) == 1:
            return self.sources[0][self.rows]
        found = torch.empty(self.shape, dtype=torch.uint8)
        bounds = list(accumulate(map(len, self.sources), initial=0))
        for source, (start, end) in zip(self.sources, pairwise(bounds), strict=True):
            if (of_source := (self.rows >= start) & (self.rows < end)).any():
                found[of_source] = source[self.rows[of_source] - start]
        return found

    def hash_into(self, digest: Any) -> None:
        """Feed all pixels to a hash of `hashlib`, in the images' order."""
        for pixels in self.split(HASHED_AT_ONCE):
            digest.update(pixels.contiguous().numpy().data)

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """The images in parts of that many, the last perhaps smaller."""
        return self.read_parts(torch.arange(len(self)).split(size))

    def read_parts(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The images of each part, rows int64 (B,). From a file, the next part is read while this one is used."""
        views = map(self.choose, parts)
        if self.is_in_memory:
            yield from (view.read() for view in views)
            return
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for view in views:
                ready, coming = coming, reader.submit(view.read)
                if ready:
                    yield ready.result()
            if coming:
                yield coming.result()


Images = torch.Tensor | StoredImages | ImageView
"""uint8 (N, 3, h, w)"""
