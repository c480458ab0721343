"""The squares of many images: decoded once into a file, or at every use where the disk is too small."""

import os
import shutil
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
from tests.common import pets
from tests.common.pets import SIZE, load

images, many = pets.images, pets.many


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
