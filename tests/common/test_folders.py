"""Image folders: what is read, how it is split, what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from common.datasets.readers import folders, image_files
from common.datasets.readers.listing import FolderError
from tests.common.pictures import draw, draw_classes, draw_noise


def test_a_folder_without_splits_is_split_70_10_20_in_every_class(tmp_path: Path):
    draw_classes(tmp_path)

    splits = folders.load(tmp_path, 16).splits

    assert {name: part.labels.bincount().tolist() for name, part in splits.items()} == {
        "train": [7, 7],
        "validation": [1, 1],
        "test": [2, 2],
    }


def test_a_relative_path_is_read_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw_classes(tmp_path / "images")
    monkeypatch.chdir(tmp_path)

    assert folders.load(Path("images"), 16).class_names == folders.load(tmp_path / "images", 16).class_names


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_split_folders_are_kept(tmp_path: Path, validation: str):
    for split, count in (("train", 3), (validation, 2), ("test", 1)):
        draw_classes(tmp_path / split, count=count)

    splits = folders.load(tmp_path, 16).splits

    assert {name: len(part) for name, part in splits.items()} == {"train": 6, "validation": 4, "test": 2}


def test_images_of_any_size_and_mode_become_rgb_squares(tmp_path: Path):
    draw(tmp_path / "cat" / "grey.png", (30, 7), "L")
    draw(tmp_path / "cat" / "palette.gif", (5, 9), "P")

    images = folders.load(tmp_path, 16).splits["train"].images.read()

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


def test_the_fingerprint_changes_with_the_pixels_of_a_file_of_the_same_size(tmp_path: Path):
    draw_classes(tmp_path)
    prints = set()
    for color in ("red", "blue"):
        Image.new("RGB", (8, 8), color).save(tmp_path / "cat" / "0.bmp")
        prints.add(folders.load(tmp_path, 16).fingerprint)

    assert len(prints) == 2


def test_split_of_an_image_depends_on_its_relative_path_alone(tmp_path: Path):
    for root in (tmp_path / "here", tmp_path / "there"):
        for index in range(10):
            draw(root / "cat" / f"{index}.png", (index + 1, 4))

    here, there = (folders.load(tmp_path / name, 16) for name in ("here", "there"))

    assert here.fingerprint == there.fingerprint
    assert sum(len(split) for split in here.splits.values()) == 10
    for name, split in here.splits.items():
        assert torch.equal(split.images.read(), there.splits[name].images.read())


def test_the_fingerprint_changes_with_a_label(tmp_path: Path):
    draw(tmp_path / "1.png")
    prints = set()
    for label in ("cat", "dog"):
        (tmp_path / "table.csv").write_text(f"path,label\n1.png,{label}\n")
        prints.add(folders.load(tmp_path, 16).fingerprint)

    assert len(prints) == 2


def test_the_same_pixels_in_train_and_test_are_reported(tmp_path: Path):
    draw_noise(tmp_path / "train" / "cat" / "1.png", seed=0)
    draw_noise(tmp_path / "test" / "cat" / "same.bmp", seed=0)
    draw_noise(tmp_path / "test" / "cat" / "other.png", seed=1)

    warnings = folders.load(tmp_path, 16).warnings

    assert [line for line in warnings if "same pixels" in line] == [
        "train/cat/1.png has the same pixels as test/cat/same.bmp: one is in train, the other in test"
    ]


def test_the_same_pixels_in_two_classes_are_reported(tmp_path: Path):
    for label in ("cat", "dog"):
        draw_noise(tmp_path / label / "1.png", seed=0)

    assert "dog/1.png has the same pixels as cat/1.png, which is another class" in folders.load(tmp_path, 16).warnings


def test_small_classes_are_reported(tmp_path: Path):
    draw_classes(tmp_path, ("cat",), count=3)

    assert "class 'cat' has only 2 training images" in folders.load(tmp_path, 16).warnings


def test_hidden_files_and_litter_are_left_out_and_counted(tmp_path: Path):
    draw(tmp_path / "cat" / "1.png")
    for name in (".git/2.png", "cat/.3.png", "cat/.thumbnails/4.png"):
        draw(tmp_path / name)
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"")

    data = folders.load(tmp_path, 16)

    assert (data.num_images, data.problems) == (1, ["4 files of systems and tools, or hidden"])


@pytest.mark.parametrize("name", ["東京", "café", "Ω mega", "a'b<c>&[bold]"])
def test_class_names_may_hold_any_character(tmp_path: Path, name: str):
    draw(tmp_path / name / "1.png")

    assert folders.load(tmp_path, 16).class_names == [name]


def test_a_name_is_the_same_from_systems_that_decompose_accents(tmp_path: Path):
    draw(tmp_path / "cafe\u0301" / "1.png")

    assert folders.load(tmp_path, 16).class_names == ["caf\u00e9"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_folder_are_followed_only_when_allowed(tmp_path: Path, what: str):
    inside, outside = tmp_path / "inside", draw(tmp_path / "outside" / "secret.png")
    draw(inside / "cat" / "1.png")
    (inside / "cat" / "link.png").symlink_to(outside if what == "file" else outside.parent)

    refused, allowed = folders.load(inside, 16), folders.load(inside, 16, allow_outside=True)

    assert (sum(refused.sizes.values()), sum(allowed.sizes.values())) == (1, 2)
    assert ["1 file outside the folder" in problem for problem in refused.problems] == [True]


def test_links_within_the_folder_are_followed(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "link.png").symlink_to(draw(tmp_path / ".store" / "1.png"))

    assert sum(folders.load(tmp_path, 16).sizes.values()) == 1


@pytest.mark.parametrize("path", ["pets", "."])
def test_a_relative_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str):
    draw_classes(tmp_path / "pets")
    monkeypatch.chdir(tmp_path / "pets" if path == "." else tmp_path)

    assert len(folders.load(Path(path), 16).class_names) == 2
