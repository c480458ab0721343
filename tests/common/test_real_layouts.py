"""Layouts that users really have: read for what they are, or refused with both readings; and every file is counted."""

import os
from collections import Counter
from pathlib import Path

import pytest

from common.datasets.readers import folders
from common.datasets.readers.finding import find_listing
from common.datasets.readers.listing import FolderError, Listing
from tests.common.pictures import draw, draw_classes, draw_noise


def touch(root: Path, *names: str) -> None:
    """Files that are named but never opened."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(listing: Listing) -> dict:
    return dict(Counter((entry.label, entry.split) for entry in listing.entries))


CATS_AND_DOGS = {("cat", None): 1, ("dog", None): 1}
IN_SPLITS = {(label, split): 1 for label in ("cat", "dog") for split in ("train", "test")}
READ = {
    "pictures beside masks": (
        ["COVID/images/1.png", "COVID/masks/1.png", "Normal/images/1.png", "Normal/masks/1.png"],
        {("COVID", None): 1, ("Normal", None): 1},
    ),
    "masks as files": (
        ["benign/b (1).png", "benign/b (1)_mask.png", "benign/b (1)_mask_1.png", "normal/n.png", "normal/n-seg.png"],
        {("benign", None): 1, ("normal", None): 1},
    ),
    "a folder of masks in each class": (["cat/1.png", "cat/masks/1.png", "dog/1.png"], CATS_AND_DOGS),
    "pictures and masks above the classes": (
        ["images/cat/1.png", "images/dog/1.png", "masks/cat/1.png"],
        CATS_AND_DOGS,
    ),
    "a wrapper": (["zip/PetImages/cat/1.png", "zip/PetImages/dog/1.png"], CATS_AND_DOGS),
    "a wrapper and a logo": (["logo.png", "PetImages/cat/1.png", "PetImages/dog/1.png"], CATS_AND_DOGS),
    "splits in a wrapper": ([f"zip/{s}/{c}/1.png" for s in ("train", "test") for c in ("cat", "dog")], IN_SPLITS),
    "splits in splits": (
        [f"seg_{s}/seg_{s}/{c}/1.png" for s in ("train", "test") for c in ("cat", "dog")],
        IN_SPLITS,
    ),
    "a wrapper in one split": (
        ["train/cat/1.png", "train/dog/1.png", "test/pets/cat/1.png", "test/pets/dog/1.png"],
        IN_SPLITS,
    ),
    "splits in classes": ([f"{c}/{s}/1.png" for s in ("train", "test") for c in ("cat", "dog")], IN_SPLITS),
    "litter beside splits": (
        [f"{s}/{c}/1.png" for s in ("train", "test") for c in ("cat", "dog")] + ["__MACOSX/train/cat/._1.png"],
        IN_SPLITS,
    ),
    "classes of waste": (
        ["recycled/1.png", "landfill/1.png"],
        {("recycled", None): 1, ("landfill", None): 1},
    ),
    "classes called like words of other things": (
        ["mask/1.png", "no_mask/1.png"],
        {("mask", None): 1, ("no_mask", None): 1},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_layout_is_read_for_what_it_is(tmp_path: Path, name: str):
    files, wanted = READ[name]
    touch(tmp_path, *files)

    assert found(find_listing(tmp_path)) == wanted


REFUSED = {
    "one class only in a wrapper with a logo": (["pets/logo.png", *(f"pets/{c}/{n}.png" for c in "ab" for n in "12")]),
    "pictures and something unknown": ([f"{c}/{part}/1.png" for c in ("cat", "dog") for part in ("images", "thumbs")]),
    "a shared folder of an unknown name": ([f"{c}/session/1.png" for c in ("cat", "dog")]),
    "masks beside classes": (["cat/1.png", "dog/1.png", "masks/1.png"]),
    "sites of domains of classes": ([f"{s}/{d}/{c}/1.png" for s in "xy" for d in ("photo", "ink") for c in "ab"]),
    "a folder of classes among classes": (["cat/1.png", "dog/1.png", "more/cat/1.png", "more/fox/1.png"]),
    "a wrapper beside unlabelled pictures": (["pets/cat/1.png", "pets/dog/1.png", "pred/1.png"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_with_both(tmp_path: Path, name: str):
    touch(tmp_path, *REFUSED[name])

    with pytest.raises(FolderError, match=r"can be read in two ways, '.* or .*: rename or move"):
        find_listing(tmp_path)


@pytest.mark.parametrize(
    "word", ["Testing", "dev", "EVALUATION", "holdout", "valid", "test_images", "val2017", "TestSet", "valdata"]
)
def test_split_words_of_the_world_are_read(tmp_path: Path, word: str):
    touch(tmp_path, "Train/cat/1.png", f"{word}/cat/1.png")

    splits = {entry.split for entry in find_listing(tmp_path).entries}

    assert splits in ({"train", "test"}, {"train", "validation"})


@pytest.mark.parametrize("stranger", ["unlabelled", "chest_xray", "pred"])
def test_the_advice_about_a_stranger_never_moves_it_into_training(tmp_path: Path, stranger: str):
    touch(tmp_path, "train/cat/1.png", "test/cat/1.png", f"{stranger}/1.png")

    with pytest.raises(FolderError, match=f"'{stranger}'.*: rename '{stranger}'.* else take it out") as refusal:
        find_listing(tmp_path)

    assert "move" not in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "doubt"),
    [
        (["photo/cat/1.png", "photo/dog/1.png", "ink/cat/1.png", "ink/dog/1.png"], "are read as domains"),
        (["pets/cat/1.png", "pets/dog/1.png", "birds/owl/1.png", "birds/duck/1.png"], "read as parts of this class"),
        (["cat/1.png"], "one class only, 'cat'"),
        (["mask/1.png", "no_mask/1.png"], "their names may say masks"),
    ],
)
def test_what_may_be_meant_otherwise_is_told(tmp_path: Path, files: list[str], doubt: str):
    touch(tmp_path, *files)

    assert any(doubt in line for line in find_listing(tmp_path).doubts)


def count_files(root: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(root))


def test_flat_split_folders_are_counted_and_told(tmp_path: Path):
    draw_classes(tmp_path / "train", count=3)
    for number in range(6):
        draw(tmp_path / "test" / f"{number}.png")
        draw(tmp_path / "val" / f"{number}.png")

    data = folders.load(tmp_path, 16)

    assert [line for line in data.problems if line.endswith("in no class folder")] == [
        "test: 6 files in no class folder",
        "val: 6 files in no class folder",
    ]
    assert [line.split(":")[0] for line in data.warnings[:2]] == [
        "there are no validation images",
        "there are no test images",
    ]


def litter(root: Path) -> None:
    touch(root, ".DS_Store", "@eaDir/cat/1.png", "cat/Thumbs.db", "System Volume Information/x")


def documents(root: Path) -> None:
    touch(root, "readme.txt", "cat/notes.docx", "train.zip")


def untrained_class(root: Path) -> None:
    (root / "table.csv").write_text("path,label,split\ncat/0.png,cat,train\ndog/0.png,dog,test\n", encoding="utf-8")


def listed_in_part(root: Path) -> None:
    (root / "pets_train.txt").write_text("cat/0.png 0\ndog/0.png 1\n", encoding="utf-8")


def broken(root: Path) -> None:
    touch(root, "cat/bad.png", "dog/none.jpg")


def linked(root: Path) -> None:
    (root / "cat" / "link.png").symlink_to(draw_noise(root.with_name("elsewhere.png"), 1))


@pytest.mark.parametrize("spoil", [litter, documents, untrained_class, listed_in_part, broken, linked])
def test_every_file_is_used_or_left_out_with_a_reason(tmp_path: Path, spoil):
    root = tmp_path / "data"
    draw_classes(root, count=3)
    spoil(root)

    data = folders.load(root, 16)

    assert data.num_left_out > 0
    assert data.problems
    assert data.num_images + data.num_left_out == count_files(root)


def test_the_same_images_are_split_alike_with_and_without_a_wrapper(tmp_path: Path):
    for root in (tmp_path / "plain", tmp_path / "wrapped" / "zip" / "pets"):
        for index in range(10):
            draw_noise(root / "cat" / f"{index}.png", index)
            draw_noise(root / "dog" / f"{index}.png", index + 10)

    plain, wrapped = (folders.load(tmp_path / name, 16) for name in ("plain", "wrapped"))

    assert plain.fingerprint == wrapped.fingerprint


TABLES = {
    "the separator's hint to Excel": b"sep=;\npath;label\ncat/0.png;cat\n",
    "the columns of Hugging Face": b"file_name,label\ncat/0.png,cat\n",
    "other names of columns": b"Image_Path|Class\ncat/0.png|cat\n",
    "paths of Windows": b"path,label\ncat\\0.png,cat\n",
    "Latin-1": "path,label,note\ncat/0.png,cat,schön\n".encode("latin-1"),
    "UTF-16": "path\tlabel\ncat/0.png\tcat\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("file", ["table.csv", "TABLE.CSV", "table.tsv"])
def test_a_table_is_read_as_programs_write_it(tmp_path: Path, name: str, file: str):
    touch(tmp_path, "cat/0.png")
    (tmp_path / file).write_bytes(TABLES[name])

    assert found(find_listing(tmp_path)) == {("cat", None): 1}


def test_a_table_of_another_code_page_is_doubted(tmp_path: Path):
    touch(tmp_path, "cat/0.png")
    (tmp_path / "labels.csv").write_bytes("path,label\ncat/0.png,Kätzchen\n".encode("latin-1"))

    listing = find_listing(tmp_path)

    assert found(listing) == {("Kätzchen", None): 1}
    assert any(line.startswith("labels.csv is not UTF-8") for line in listing.doubts)


def test_each_split_folder_may_have_a_table_of_its_own(tmp_path: Path):
    for split in ("train", "test"):
        touch(tmp_path, f"{split}/0.png", f"{split}/1.png")
        (tmp_path / split / "metadata.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n", encoding="utf-8")

    assert found(find_listing(tmp_path)) == IN_SPLITS


def test_an_unusable_table_in_a_wrapper_is_named(tmp_path: Path):
    touch(tmp_path, "ISIC/images/0.png", "ISIC/images/1.png")
    (tmp_path / "ISIC" / "labels.csv").write_text("id,diagnosis\n0,cat\n", encoding="utf-8")

    assert any(line.startswith("ISIC/labels.csv is not used") for line in find_listing(tmp_path).doubts)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,diagnosis\n1,cat\n", "has no path and no label"),
        (b"file_name,class\nnowhere.png,cat\n", "names no image that is there"),
        (b"\0\1\2", "bytes that are no text"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, reason: str):
    touch(tmp_path, "cat/0.png", "dog/0.png")
    (tmp_path / "labels.csv").write_bytes(content)

    listing = find_listing(tmp_path)

    assert found(listing) == CATS_AND_DOGS
    assert any(line.startswith("labels.csv is not used: ") and reason in line for line in listing.doubts)


def test_a_folder_whose_name_holds_a_hash_is_no_part(tmp_path: Path):
    touch(tmp_path, "C# images/cat/1.png", "C# images/dog/1.png")

    assert found(find_listing(tmp_path / "C# images")) == CATS_AND_DOGS


def test_a_missing_folder_is_named_in_full(tmp_path: Path):
    with pytest.raises(FolderError, match=r"there is no folder .*/C# images"):
        find_listing(tmp_path / "C# images")


@pytest.mark.parametrize("name", ["x" * 101, "a\u200bb", "tab\there"])
def test_a_class_name_that_the_server_would_refuse_is_refused(tmp_path: Path, name: str):
    touch(tmp_path, f"{name}/1.png", "dog/1.png")

    with pytest.raises(FolderError, match="without a readable name of 1 to 100 printable characters"):
        find_listing(tmp_path)


def test_classes_that_differ_in_blanks_are_refused_as_the_server_does(tmp_path: Path):
    draw_classes(tmp_path, ("hot air", "hot  air"), count=1)

    with pytest.raises(FolderError, match="differ only in case or blanks"):
        folders.load(tmp_path, 16)
