"""Synthetic images side by side: for each client and class one small PNG, a few images high."""

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_CLASSES = 20
MAX_CLIENTS = 12
MAX_BYTES = 1_400_000
"""PNG bytes of one grid, all its clients together."""
LAYOUTS = ((64, 3), (48, 2), (32, 1))
"""Largest tile in pixels and images a class, tried in this order until the grid is small enough."""
SMALLEST_TILE = 32


@dataclass(frozen=True)
class Grid:
    classes: list[str]
    """Folder names of the columns, at most `MAX_CLASSES`, evenly chosen."""
    num_classes: int
    clients: dict[str, dict[str, "Strip"]]
    """Client's folder name -> class -> its images, for the classes of `classes` that the client has."""
    num_clients: int


@dataclass(frozen=True)
class Strip:
    png: bytes
    files: list[str]
    """<class>/<seed>.png of the images shown, from the top."""


def grid(folder: Path, hidden: Collection[Path] = ()) -> Grid | None:
    """The images under `folder`/<client>/<class>/<seed>.png but the hidden ones, or None where there are none."""
    clients = [client for client in _folders(folder) if next(client.glob("*/*.png"), None)]
    classes = sorted({path.parent.name for client in clients for path in client.glob("*/*.png")}, key=_natural)
    if not classes:
        return None
    chosen = [classes[i * len(classes) // MAX_CLASSES] for i in range(MAX_CLASSES)]
    shown = classes if len(classes) <= MAX_CLASSES else chosen
    limit = MAX_BYTES // min(len(clients), MAX_CLIENTS)
    pictures = {client.name: _strips(client, shown, limit, hidden) for client in clients[:MAX_CLIENTS]}
    return Grid(shown, len(classes), pictures, len(clients))


def _strips(client: Path, classes: list[str], limit: int, hidden: Collection[Path]) -> dict[str, Strip]:
    for largest, rows in LAYOUTS:
        columns = {name: images for name in classes if (images := _images(client / name, rows, hidden))}
        sizes = [max(image.size) for images in columns.values() for image in images.values()]
        tile = max(SMALLEST_TILE, min(largest, max(sizes, default=0)))
        strips = {name: _strip(images, tile) for name, images in columns.items()}
        if sum(len(strip.png) for strip in strips.values()) <= limit:
            break
    return strips


def _strip(images: dict[str, Image.Image], tile: int) -> Strip:
    canvas = Image.new("RGB", (tile, tile * len(images)))
    for y, image in enumerate(images.values()):
        how = Image.Resampling.NEAREST if max(image.size) <= tile else Image.Resampling.LANCZOS
        canvas.paste(image.resize((tile, tile), how), (0, y * tile))
    buffer = io.BytesIO()
    canvas.save(buffer, "png", optimize=True)
    return Strip(buffer.getvalue(), list(images))


def _images(folder: Path, count: int, hidden: Collection[Path]) -> dict[str, Image.Image]:
    images: dict[str, Image.Image] = {}
    for path in sorted(folder.glob("*.png"), key=_natural):
        if len(images) == count:
            break
        if path in hidden:
            continue
        try:
            images[f"{folder.name}/{path.name}"] = Image.open(path).convert("RGB")
        except OSError:
            continue
    return images


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _natural(item: Path | str) -> tuple[bool, int, str]:
    text = item.stem if isinstance(item, Path) else item
    return (False, int(text), text) if text.isdecimal() else (True, 0, text)
