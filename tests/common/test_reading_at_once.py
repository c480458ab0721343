"""Threads that decode pictures share a bound on memory and one setting of Pillow."""

import threading
from pathlib import Path

import pytest
from PIL import Image

from common.datasets.readers import image_files
from common.datasets.readers.image_files import read_picture, read_pictures
from tests.common.pictures import draw_noise


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [draw_noise(tmp_path / f"{number}.png", seed=number) for number in range(12)]


def test_no_more_pictures_are_in_memory_than_there_is_room_for(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    width, height = Image.open(paths[0]).size
    monkeypatch.setattr(image_files, "PIXELS_AT_ONCE", 2 * width * height)
    monkeypatch.setattr(image_files, "num_processors", lambda: 6)
    lock, now, most = threading.Lock(), [0], [0]

    def use(_: object) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.01)
        with lock:
            now[0] -= 1

    list(read_pictures(paths, 1.0, use))

    assert most[0] == 2


def test_a_picture_larger_than_the_room_is_read_alone(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_files, "PIXELS_AT_ONCE", 5)

    assert len(list(read_pictures(paths, 1.0, lambda picture: picture.size))) == len(paths)


def test_pillow_s_own_limit_is_there_again_when_the_last_reader_ends(paths: list[Path]):
    before = Image.MAX_IMAGE_PIXELS
    first, second = (read_pictures(paths, 1.0, lambda picture: picture.size) for _ in range(2))
    next(first), next(second)

    first.close()
    assert Image.MAX_IMAGE_PIXELS is None
    second.close()

    assert before == Image.MAX_IMAGE_PIXELS


def test_a_file_that_is_not_there_is_not_called_broken(tmp_path: Path):
    with pytest.raises(image_files.NotNowError, match=r"^it cannot be read \(No such file or directory\)$"):
        read_picture(tmp_path / "gone.png")
