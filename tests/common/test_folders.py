"""Image folders: what is read, how it is split, what is refused."""

from pathlib import Path

import pytest
from PIL import Image

from common.datasets import folders, image_files
from common.datasets.listing import FolderError


def draw(path: Path, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def draw_classes(root: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> None:
    for name in names:
        for index in range(count):
            draw(root / name / f"{index}.png")


def test_a_folder_without_splits_is_split_70_10_20_in_every_class(tmp_path: Path):
    draw_classes(tmp_path)

    splits = folders.load(tmp_path, 16).splits

    assert {name: part.labels.bincount().tolist() for name, part in splits.items()} == {
        "train": [7, 7],
        "validation": [1, 1],
        "test": [2, 2],
    }


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_split_folders_are_kept(tmp_path: Path, validation: str):
    for split, count in (("train", 3), (validation, 2), ("test", 1)):
        draw_classes(tmp_path / split, count=count)

    splits = folders.load(tmp_path, 16).splits

    assert {name: len(part) for name, part in splits.items()} == {"train": 6, "validation": 4, "test": 2}


def test_images_of_any_size_and_mode_become_rgb_squares(tmp_path: Path):
    draw(tmp_path / "cat" / "grey.png", (30, 7), "L")
    draw(tmp_path / "cat" / "palette.gif", (5, 9), "P")

    images = folders.load(tmp_path, 16).splits["train"].images

    assert tuple(images.shape[1:]) == (3, 16, 16)


def test_an_image_is_turned_upright_by_its_exif_tag(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4)).save(tmp_path / "turned.jpg", exif=exif)

    pixels = image_files.read_image(tmp_path / "turned.jpg")

    assert tuple(pixels.shape) == (3, 10, 4)


def test_unreadable_images_are_listed_and_skipped(tmp_path: Path):
    draw_classes(tmp_path, ("cat",), count=2)
    (tmp_path / "cat" / "broken.png").write_bytes(b"no image")

    data = folders.load(tmp_path, 16)

    assert [problem.split(":")[0] for problem in data.problems] == ["cat/broken.png"]
    assert sum(len(part) for part in data.splits.values()) == 2


def test_a_class_without_readable_images_is_named(tmp_path: Path):
    draw_classes(tmp_path)
    (tmp_path / "fox").mkdir()

    with pytest.raises(FolderError, match="class folder 'fox'"):
        folders.load(tmp_path, 16)


def test_a_folder_without_class_folders_is_named(tmp_path: Path):
    draw(tmp_path / "loose.png")

    with pytest.raises(FolderError, match=f"{tmp_path} has no class folders"):
        folders.load(tmp_path, 16)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(FolderError, match="there is no folder"):
        folders.load(tmp_path / "nowhere", 16)


def test_fingerprint_changes_with_the_files(tmp_path: Path):
    draw_classes(tmp_path)
    before = folders.load(tmp_path, 16).fingerprint
    draw(tmp_path / "cat" / "more.png")

    assert folders.load(tmp_path, 16).fingerprint != before


def test_split_of_an_image_depends_on_its_relative_path_alone(tmp_path: Path):
    for root in (tmp_path / "here", tmp_path / "there"):
        for index in range(10):
            draw(root / "cat" / f"{index}.png", (index + 1, 4))

    here, there = (folders.load(tmp_path / name, 16) for name in ("here", "there"))

    assert here.fingerprint == there.fingerprint
    assert all((here.splits[name].images == there.splits[name].images).all() for name in here.splits)
