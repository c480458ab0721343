"""Folders that cannot be used, each by its name: all end in one sentence, none in a traceback."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.datasets.readers import folders
from common.datasets.readers.listing import FolderError
from fedlmg_client.cli import app
from tests.common import bad_folders
from tests.common.bad_folders import write
from tests.common.pictures import draw, draw_classes

REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {}
"""Name -> what the sentence says, and how to make the folder."""

root = bad_folders.root


def refused(reason: str):
    return lambda make: REFUSED.setdefault(make.__name__, (reason, make))[1]


@refused("there is no folder")
def nothing_there(root: Path):
    root.rmdir()


@refused("is no folder of images")
def a_file_of_another_kind(root: Path):
    root.rmdir()
    write(root, b"PK\x03\x04")


@refused("has no class folders")
def empty(root: Path):
    pass


@refused("has no class folders")
def loose_images(root: Path):
    draw(root / "1.png")


@refused("has no class folders")
def only_hidden_folders(root: Path):
    draw(root / ".cat" / "1.png")


@refused("class folder 'fox' .* has no readable training image")
def an_empty_class(root: Path):
    draw_classes(root)
    (root / "fox").mkdir()


@refused("class folder 'cat' .* has no readable training image .*no image that can be read")
def a_class_of_broken_images(root: Path):
    write(root / "cat" / "1.png", b"broken")


@refused("class folder 'cat' .*not read as images")
def a_class_of_documents(root: Path):
    write(root / "cat" / "1.pdf", b"%PDF")


@refused("class folder 'cat' .*not read as images")
def a_class_of_files_without_suffix(root: Path):
    draw(root / "cat" / "1.png").rename(root / "cat" / "1")


@refused("'Cat' and 'cat' .* differ only in case")
def classes_that_differ_in_case(root: Path):
    draw_classes(root, ("cat", "Cat"), count=1)


@refused("'CAFÉ' and 'café' .* differ only in case")
def accented_classes_that_differ_in_case(root: Path):
    draw_classes(root, ("cafe\u0301", "CAFÉ"), count=1)


@refused("a class without a readable name")
def a_class_called_blank(root: Path):
    draw(root / "  " / "1.png")


@refused("a class without a readable name")
def a_class_whose_name_is_not_utf8(root: Path):
    draw(root / os.fsdecode(b"caf\xe9") / "1.png")


@refused("split folders but no 'train'")
def splits_without_train(root: Path):
    draw_classes(root / "test")
    draw_classes(root / "val")


@refused("split folders and also 'cat'")
def splits_mixed_with_classes(root: Path):
    draw_classes(root / "train")
    draw(root / "cat" / "1.png")


@refused("has no class folders")
def train_without_classes(root: Path):
    draw(root / "train" / "1.png")


@refused("class folder 'cat' .* outside the folder")
def a_class_that_is_a_link_out(root: Path):
    draw(root.with_name("elsewhere") / "1.png")
    (root / "cat").symlink_to(root.with_name("elsewhere"))


@refused("Too many levels of symbolic links|no class folders")
def a_class_that_links_to_itself(root: Path):
    (root / "cat").symlink_to(root / "cat")


@refused("lacks the columns path and label")
def a_table_without_columns(root: Path):
    root.rmdir()
    write(root.with_suffix(".csv"), "file;kind\n1.png;cat\n")
    root.symlink_to(root.with_suffix(".csv"))


@refused("names no image that is there")
def a_table_without_rows_that_exist(root: Path):
    write(root / "table.csv", "path,label\nnowhere.png,cat\n")


@refused("names no image that is there")
def a_table_of_endless_paths(root: Path):
    write(root / "table.csv", f"path,label\n{'a' * 5000}.png,cat\n")


@refused("'someday' is no split")
def a_table_with_an_unknown_split(root: Path):
    draw(root / "1.png")
    write(root / "table.csv", "path,label,split\n1.png,cat,someday\n")


@refused("gives a split for some images only")
def a_table_with_half_a_split(root: Path):
    draw(root / "1.png")
    draw(root / "2.png")
    write(root / "table.csv", "path,label,split\n1.png,cat,train\n2.png,cat,\n")


@refused("has no readable training image.*outside the folder")
def a_table_that_reaches_out(root: Path):
    draw(root.with_name("secret.png"))
    write(root / "table.csv", "path,label\n../secret.png,cat\n")


@refused("has the tables a.csv and b.csv")
def two_tables(root: Path):
    for name in ("a.csv", "b.csv"):
        write(root / name, "path,label\n1.png,cat\n")


@refused("names no image that is there .*no file 1.png")
def a_table_in_utf16(root: Path):
    write(root / "table.csv", "path,label\n1.png,cat\n".encode("utf-16"))


@refused("cannot be read")
def a_table_with_a_zero_byte(root: Path):
    write(root / "table.csv", 'path,label\n1.png,cat\n"2.png,dog\n')


@refused("is not there|is the right file|lies beside it")
def a_list_of_images_that_are_not_there(root: Path):
    write(root / "clipart_train.txt", "clipart/cat/1.jpg 0\n")


@refused("are for validation or test")
def a_table_of_test_images_alone(root: Path):
    draw(root / "1.png")
    write(root / "table.csv", "path,label,split\n1.png,cat,test\n")


@refused("lies beside it")
def a_list_in_latin1(root: Path):
    write(root / "clipart_train.txt", "clipart/caf\xe9/1.jpg 0\n".encode("latin-1"))


@refused("label index 7, which label_id_mapping.json does not name")
def a_list_beyond_its_mapping(root: Path):
    draw(root / "x" / "1.png")
    write(root / "x_train.txt", "x/1.png 7\n")
    write(root / "label_id_mapping.json", '{"cat": 0}')


@refused("does not map class names to indices")
def a_mapping_that_is_no_json(root: Path):
    draw(root / "x" / "1.png")
    write(root / "x_train.txt", "x/1.png 7\n")
    write(root / "label_id_mapping.json", "cat = 0")


@refused("has no table of class names")
def open_images_without_descriptions(root: Path):
    draw(root / "a.jpg")
    write(root / "train-labels.csv", "ImageID,Source,LabelName,Confidence\na,machine,/m/1,1\n")


@refused("no image that shows just one of its classes")
def open_images_with_negative_labels_only(root: Path):
    draw(root / "a.jpg")
    write(root / "train-labels.csv", "ImageID,Source,LabelName,Confidence\na,verification,/m/1,0\n")
    write(root / "class-descriptions.csv", "/m/1,Fox\n")


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_used_is_refused_in_a_sentence(root: Path, name: str):
    reason, make = REFUSED[name]
    make(root)

    with pytest.raises(FolderError, match=reason) as refusal:
        folders.load(root.resolve(), 16)

    assert "\n" not in str(refusal.value)


def test_check_ends_with_one_sentence_and_status_1(root: Path):
    result = CliRunner().invoke(app, ["check", str(root)])

    assert (result.exit_code, result.output.count("\n")) == (1, 1)
