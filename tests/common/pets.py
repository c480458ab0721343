"""A folder of pets, which may be too large for the memory."""

from pathlib import Path

import pytest

from common.datasets.readers import folders, squares
from tests.common.pictures import draw_noise

SIZE = 8


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """20 images of two classes, and one file that is none."""
    for label in ("cat", "dog"):
        for number in range(10):
            draw_noise(tmp_path / "pets" / label / f"{number}.png", seed=number + 10 * (label == "dog"))
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"none")
    return tmp_path / "pets"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 images are too many for the memory."""
    monkeypatch.setattr(squares, "MOST_IN_MEMORY", 20 * 3 * SIZE * SIZE)


def load(images: Path, cache: Path | None = None, **settings: float) -> folders.ImageFolder:
    return folders.load(images, SIZE, cache=cache, **settings)
