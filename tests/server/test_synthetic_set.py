"""Synthetic images of the diffusion model's size, read at the student's."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from common.config import ConfigError
from common.storage.images import ImageFile, ImageView
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.distillation import synthetic_set
from fedlmg_server.distillation.synthetic_set import read_images

STUDENT = PreprocessSpec(8)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five noisy images of 16 pixels."""
    found = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(found):
        pixels = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    return found


def test_images_are_resized_to_the_students_size(paths: list[Path], tmp_path: Path):
    images = read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")

    whole = read_images(paths, PreprocessSpec(16), tmp_path / "pixels", "fedlmg")
    assert torch.equal(images, STUDENT.resize(whole))


def test_many_images_lie_in_a_file_that_is_made_once(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    in_memory = read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")
    monkeypatch.setattr(synthetic_set, "MOST_IN_MEMORY", 100)

    made = read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")
    monkeypatch.setattr(synthetic_set, "_decode", None)
    again = read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")

    assert isinstance(made, ImageFile)
    assert made == again
    assert torch.equal(ImageView.of(made).read(), in_memory)


def test_file_is_made_anew_when_an_image_was_drawn_again(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synthetic_set, "MOST_IN_MEMORY", 100)
    former = read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")
    Image.new("RGB", (16, 16), "white").save(paths[0])

    newer = read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")

    assert ImageView.of(newer).read()[0].min() == 255
    assert list((tmp_path / "pixels").iterdir()) == [newer.path]
    assert newer != former


def test_disk_that_is_too_small_is_told_in_bytes(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synthetic_set, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))

    with pytest.raises(ConfigError, match=r"need 0\.0 GB in .*pixels, but 0\.0 GB are free: make room there"):
        read_images(paths, STUDENT, tmp_path / "pixels", "fedlmg")
