"""The squares of many images: decoded once into a file, or at every use where the disk is too small."""

import os
import shutil
import time
from functools import reduce
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from common.datasets.labeled_images import LabeledView
from common.datasets.readers import folders, pictures, square_files, squares
from common.storage.images import ImageFile
from common.telling import ToldError
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


def same(first: folders.ImageFolder, second: folders.ImageFolder) -> bool:
    return first.fingerprint == second.fingerprint and all(
        torch.equal(part.images.read(), second.splits[split].images.read())
        and torch.equal(part.labels, second.splits[split].labels)
        for split, part in first.splits.items()
    )


def test_what_takes_long_is_told_with_the_time_left(images: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(pictures, "SECONDS_BETWEEN_LINES", 0.0)

    load(images)

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "opened 21 of 21 images, 0 s left"


def source(data: folders.ImageFolder) -> object:
    return data.splits["train"].images.sources[0]


def test_few_images_are_in_memory(images: Path, tmp_path: Path):
    assert isinstance(source(load(images, tmp_path / "cache")), torch.Tensor)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("many")
def test_many_images_are_the_same_from_a_file(images: Path, tmp_path: Path):
    in_memory = load(images)

    in_file = load(images, tmp_path / "cache")

    assert isinstance(source(in_file), ImageFile)
    assert same(in_memory, in_file)
    assert (in_file.problems, in_file.warnings, in_file.sizes) == (
        in_memory.problems, in_memory.warnings, in_memory.sizes
    )  # fmt: skip


@pytest.mark.usefixtures("many")
def test_they_are_decoded_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = load(images, tmp_path / "cache")
    monkeypatch.setattr(squares, "look_at", None)

    again = load(images, tmp_path / "cache")

    assert same(first, again)
    assert (again.problems, again.sizes) == (first.problems, first.sizes)


@pytest.mark.usefixtures("many")
def test_a_file_that_changed_is_decoded_anew(images: Path, tmp_path: Path):
    first = load(images, tmp_path / "cache")
    Image.new("RGB", (16, 16), "white").save(images / "cat" / "3.png")

    assert load(images, tmp_path / "cache").fingerprint != first.fingerprint


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


def too_small(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=square_files.SPARE_BYTES + 10))
    return {}


def full(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    return {}


SHORTAGES = {
    "free": (too_small, "1.0 GB are free, of which 1.0 GB stay free"),
    "full": (full, "cannot be written: No space left on device"),
    "allowed": (lambda _: {"most_gigabytes": 0.0}, "more than the 0 GB of 'image-gigabytes'"),
}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("shortage", SHORTAGES)
def test_without_room_every_use_decodes_and_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shortage: str
):
    prepare, sentence = SHORTAGES[shortage]
    in_memory = load(images)

    data = load(images, tmp_path / "cache", **prepare(monkeypatch))

    assert same(in_memory, data)
    assert any("every epoch decodes all images again" in line and sentence in line for line in data.warnings)
    assert list((tmp_path / "cache").iterdir()) == []


def spoil(path: Path) -> None:
    path.write_bytes(b"none")


def replace(path: Path) -> None:
    Image.new("RGB", (20, 20)).save(path)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("change", [spoil, replace, Path.unlink])
def test_an_image_that_changes_between_epochs_is_a_sentence(images: Path, tmp_path: Path, change):
    data = load(images, tmp_path / "cache", most_gigabytes=0.0)
    change(sorted((images / "cat").glob("[0-9].png"))[0])

    with pytest.raises(ToldError, match=r"0\.png was changed or removed while it was in use: leave") as caught:
        reduce(LabeledView.join, data.splits.values()).read()

    assert "png" not in caught.value.public


@pytest.mark.usefixtures("many")
def test_with_a_file_of_squares_the_folder_may_change(images: Path, tmp_path: Path):
    data = load(images, tmp_path / "cache")
    before = data.splits["train"].images.read()
    shutil.rmtree(images)

    assert torch.equal(data.splits["train"].images.read(), before)


@pytest.mark.usefixtures("many")
def test_squares_stay_as_they_were_whatever_another_process_does_with_their_files(images: Path, tmp_path: Path):
    data = load(images, tmp_path / "cache")
    before = data.splits["train"].images.read()
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    (images / "cat" / "0.png").rename(images / "cat" / "moved.png")
    load(images, tmp_path / "cache")

    assert torch.equal(data.splits["train"].images.read(), before)


@pytest.mark.usefixtures("many")
def test_a_damaged_square_is_a_sentence_without_a_name_for_the_server(images: Path, tmp_path: Path):
    data = load(images, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.uint8")
    with open(file, "r+b") as damaged:
        damaged.write(bytes(20 * 3 * SIZE * SIZE))

    with pytest.raises(ToldError, match="is damaged: remove this file, and start again") as caught:
        data.splits["train"].images.read()

    assert str(tmp_path) not in caught.value.public


@pytest.mark.usefixtures("many")
def test_an_image_that_cannot_be_read_for_now_is_tried_again(images: Path, tmp_path: Path, monkeypatch):
    healthy, open_image = load(images), Image.open

    def fail(path: Path):
        if path.name == "3.png":
            raise OSError(5, "Input/output error")
        return open_image(path)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fail)
        ill = load(images, tmp_path / "cache")

    well = load(images, tmp_path / "cache")

    assert sum("it cannot be read (Input/output error)" in line for line in ill.problems) == 2
    assert same(well, healthy)


@pytest.mark.usefixtures("many")
def test_an_image_of_the_same_size_and_time_is_decoded_anew(images: Path, tmp_path: Path):
    path = images / "cat" / "grey.bmp"
    Image.new("RGB", (16, 16), "black").save(path)
    first, state = load(images, tmp_path / "cache"), path.stat()
    Image.new("RGB", (16, 16), "white").save(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert load(images, tmp_path / "cache").fingerprint != first.fingerprint
