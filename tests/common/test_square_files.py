"""Files of squares are kept while they are of use, for their owner alone, and then removed."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from common.datasets.readers import square_files
from tests.common import pets
from tests.common.pets import load
from tests.common.pictures import draw_noise

images, many = pets.images, pets.many


@pytest.mark.usefixtures("many")
def test_a_file_of_squares_that_was_cut_off_is_made_anew(images: Path, tmp_path: Path):
    first = load(images, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.uint8")
    before = first.splits["train"].images.read()
    os.truncate(file, 100)

    again = load(images, tmp_path / "cache")

    assert torch.equal(again.splits["train"].images.read(), before)


@pytest.mark.usefixtures("many")
@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_nobody_else_can_read_them(images: Path, tmp_path: Path):
    load(images, tmp_path / "cache")

    files = list((tmp_path / "cache").iterdir())
    assert {file.suffix for file in files} == {".uint8", ".json"}
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


@pytest.mark.usefixtures("many")
def test_what_was_not_used_for_long_is_removed(images: Path, tmp_path: Path):
    load(images, tmp_path / "cache")
    month_ago = time.time() - square_files.SECONDS_KEPT - 60
    old = set((tmp_path / "cache").iterdir())
    for file in old:
        os.utime(file, (month_ago, month_ago))

    load(images, tmp_path / "cache", max_megapixels=80.0)

    assert old.isdisjoint((tmp_path / "cache").iterdir())


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_what_is_in_use_is_not_removed_for_room(images: Path, tmp_path: Path, hours: int, stays: bool):
    load(images, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.uint8")
    os.utime(file, (time.time() - hours * 3600,) * 2)

    other = load(images, tmp_path / "cache", max_megapixels=80.0, most_gigabytes=6e-6)

    assert file.exists() == stays
    assert any("raise it" in warning for warning in other.warnings) == stays


def withdraw(image: Path) -> None:
    image.unlink()


def withdraw_many(image: Path) -> None:
    """The others fit into the memory."""
    for each in image.parent.iterdir():
        if each.stem != "0":
            each.unlink()


def redraw(image: Path) -> None:
    draw_noise(image, seed=99)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("change", [withdraw, withdraw_many, redraw])
@pytest.mark.parametrize("settings", [{}, {"max_megapixels": 80.0}])
def test_nothing_stays_of_an_image_that_was_withdrawn(images: Path, tmp_path: Path, change, settings: dict[str, float]):
    load(images, tmp_path / "cache")
    before = set((tmp_path / "cache").iterdir())
    change(images / "cat" / "3.png")

    load(images, tmp_path / "cache", **settings)

    assert len(before) == 2
    assert before.isdisjoint((tmp_path / "cache").iterdir())


@pytest.mark.usefixtures("many")
def test_squares_that_are_read_stay_until_the_next_time(images: Path, tmp_path: Path):
    data = load(images, tmp_path / "cache")
    before = set((tmp_path / "cache").iterdir())
    withdraw(images / "cat" / "3.png")

    load(images, tmp_path / "cache")
    kept = before & set((tmp_path / "cache").iterdir())
    del data
    load(images, tmp_path / "cache")

    assert kept == before
    assert before.isdisjoint((tmp_path / "cache").iterdir())


@pytest.mark.usefixtures("many")
def test_squares_of_another_folder_and_of_other_settings_stay(images: Path, tmp_path: Path):
    shutil.copytree(images, tmp_path / "others")
    load(tmp_path / "others", tmp_path / "cache")
    load(images, tmp_path / "cache", max_megapixels=80.0)
    before = set((tmp_path / "cache").iterdir())

    load(images, tmp_path / "cache")

    assert len(before) == 4
    assert before <= set((tmp_path / "cache").iterdir())
