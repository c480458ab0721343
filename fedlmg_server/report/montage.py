"""Synthetic images side by side: one small PNG a client, a column a class, a few rows."""

import io
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
    clients: dict[str, bytes]
    """Client's folder name -> PNG, columns as `classes`, blank where the client has no image."""
    num_clients: int


def grid(folder: Path) -> Grid | None:
    """The images under `folder`/<client>/<class>/<seed>.png, or None where there are none."""
    clients = [client for client in _folders(folder) if next(client.glob("*/*.png"), None)]
    classes = sorted({path.parent.name for client in clients for path in client.glob("*/*.png")}, key=_natural)
    if not classes:
        return None
    chosen = [classes[i * len(classes) // MAX_CLASSES] for i in range(MAX_CLASSES)]
    shown = classes if len(classes) <= MAX_CLASSES else chosen
    limit = MAX_BYTES // min(len(clients), MAX_CLIENTS)
    pictures = {client.name: _montage(client, shown, limit) for client in clients[:MAX_CLIENTS]}
    return Grid(shown, len(classes), pictures, len(clients))


def _montage(client: Path, classes: list[str], limit: int) -> bytes:
    for largest, rows in LAYOUTS:
        columns = [_images(client / name, rows) for name in classes]
        sizes = [max(image.size) for column in columns for image in column]
        tile = max(SMALLEST_TILE, min(largest, max(sizes, default=0)))
        height = max(1, *(len(column) for column in columns)) if columns else 1
        canvas = Image.new("RGBA", (tile * len(classes), tile * height))
        for x, column in enumerate(columns):
            for y, image in enumerate(column):
                how = Image.Resampling.NEAREST if max(image.size) <= tile else Image.Resampling.LANCZOS
                canvas.paste(image.resize((tile, tile), how), (x * tile, y * tile))
        buffer = io.BytesIO()
        canvas.save(buffer, "png", optimize=True)
        if buffer.tell() <= limit:
            break
    return buffer.getvalue()


def _images(folder: Path, count: int) -> list[Image.Image]:
    images = []
    for path in sorted(folder.glob("*.png"), key=_natural):
        if len(images) == count:
            break
        try:
            images.append(Image.open(path).convert("RGB"))
        except OSError:
            continue
    return images


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _natural(item: Path | str) -> tuple[bool, int, str]:
    text = item.stem if isinstance(item, Path) else item
    return (False, int(text), text) if text.isdecimal() else (True, 0, text)
