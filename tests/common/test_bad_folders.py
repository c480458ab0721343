"""Bad data folders, each by its name: all end in one sentence, or in images listed and skipped; none in a traceback."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.datasets.readers import folders
from common.datasets.readers.listing import FolderError
from fedlmg_client.cli import app
from tests.common.pictures import draw, draw_classes, draw_noise

REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {}
"""Name -> what the sentence says, and how to make the folder."""
SKIPPED: dict[str, tuple[str, Callable[[Path], object]]] = {}
"""Name -> what the line says, and what to do to a good folder of cats and dogs."""


def refused(reason: str):
    return lambda make: REFUSED.setdefault(make.__name__, (reason, make))[1]


def skipped(reason: str):
    return lambda make: SKIPPED.setdefault(make.__name__, (reason, make))[1]


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


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


@skipped("cat/bad.png: it is no image that can be read")
def an_empty_file(root: Path):
    write(root / "cat" / "bad.png", b"")


@skipped("cat/bad.png: it is no image that can be read")
def a_web_page_called_an_image(root: Path):
    write(root / "cat" / "bad.png", "<html>404</html>")


@skipped("cat/bad.jpg: it is broken")
def a_truncated_jpeg(root: Path):
    whole = draw_noise(root / "cat" / "bad.jpg", 0, (64, 64)).read_bytes()
    write(root / "cat" / "bad.jpg", whole[: len(whole) // 2])


@skipped("cat/bad.png: it is broken")
def a_png_with_a_wrong_checksum(root: Path):
    whole = bytearray(draw_noise(root / "cat" / "bad.png", 0).read_bytes())
    whole[whole.index(b"IDAT") + 8] ^= 0xFF
    write(root / "cat" / "bad.png", bytes(whole))


@skipped("cat/bad.bmp: .* decompression bomb")
def a_bomb(root: Path):
    write(
        root / "cat" / "bad.bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 50000, 50000, 1, 24, *[0] * 6)
    )


@skipped("cat: 1 file outside the folder")
def a_link_out(root: Path):
    (root / "cat" / "bad.png").symlink_to("/etc/hostname")


@skipped("cat: 1 file linked to what is not there")
def a_link_to_nothing(root: Path):
    (root / "cat" / "bad.png").symlink_to("gone.png")


@skipped("cat: 1 file linked to what is not there")
def a_link_out_to_nothing(root: Path):
    (root / "cat" / "bad.png").symlink_to("/gone/bad.png")


@skipped("pets_train.txt: it is not a regular file")
def a_pipe_with_the_name_of_a_list(root: Path):
    os.mkfifo(root / "pets_train.txt")


@skipped("cat: 1 file linked to what is not there")
def a_link_to_itself(root: Path):
    (root / "cat" / "bad.png").symlink_to("bad.png")


@skipped("cat/round: it is a link to a folder that contains it")
def a_link_in_a_circle(root: Path):
    (root / "cat" / "round").symlink_to(root)


@skipped("cat/bad.png: it is not a regular file")
def a_pipe(root: Path):
    os.mkfifo(root / "cat" / "bad.png")


@skipped("cat: 2 files .heic, not read as images")
def files_of_an_unread_format(root: Path):
    write(root / "cat" / "1.heic", b"")
    write(root / "cat" / "2.HEIC", b"")


@skipped("b�d.png: it is no image")
def a_broken_image_whose_name_is_not_utf8(root: Path):
    write(root / "cat" / os.fsdecode(b"b\xe4d.png"), b"broken")


def manifest(root: Path, *lines: str) -> None:
    write(root / "table.csv", "\n".join(["path,label", "cat/0.png,cat", "cat/1.png,cat", "dog/0.png,dog", *lines]))


@skipped("table.csv line 5 has no path or no label")
def a_table_row_without_label(root: Path):
    manifest(root, "dog/1.png,")


@skipped("table.csv line 5: there is no file dog/nowhere.png")
def a_table_row_of_a_missing_file(root: Path):
    manifest(root, "dog/nowhere.png,dog")


@skipped("cat/0.png: it is listed twice, the first time as 'cat'")
def a_table_with_an_image_of_two_classes(root: Path):
    manifest(root, "cat/0.png,dog")


@skipped("pets_train.txt line 3 is not 'path label-index'")
def a_list_line_without_index(root: Path):
    write(root / "pets_train.txt", "cat/0.png 0\ndog/0.png 1\ncat/1.png\n")


@skipped("1 of 3 listed images are missing")
def a_list_line_of_a_missing_file(root: Path):
    write(root / "pets_train.txt", "cat/0.png 0\ndog/0.png 1\ncat/gone.png 0\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_used_is_refused_in_a_sentence(root: Path, name: str):
    reason, make = REFUSED[name]
    make(root)

    with pytest.raises(FolderError, match=reason) as refusal:
        folders.load(root.resolve(), 16)

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", SKIPPED)
def test_what_cannot_be_read_is_listed_and_the_rest_is_kept(root: Path, name: str):
    draw_classes(root, count=2)
    reason, spoil = SKIPPED[name]
    spoil(root)

    data = folders.load(root, 16)

    assert data.class_names == ["cat", "dog"]
    assert re.search(reason, "\n".join(data.problems))


@pytest.mark.parametrize("written", ["cat/../cat/{}.png", "./cat/{}.png", "cat//{}.png"])
def test_an_image_that_a_table_names_by_a_detour_is_not_left_out_as_well(root: Path, written: str):
    draw_classes(root, ("cat",), count=4)
    write(root / "table.csv", "path,label\n" + "".join(f"{written.format(i)},cat\n" for i in range(4)))

    data = folders.load(root, 16)

    assert (data.num_images, data.num_left_out) == (4, 1)


def test_check_ends_with_one_sentence_and_status_1(root: Path):
    result = CliRunner().invoke(app, ["check", str(root)])

    assert (result.exit_code, result.output.count("\n")) == (1, 1)


def test_check_shows_layout_counts_sizes_and_problems(root: Path):
    draw_classes(root, ("[b]cat", "dog"), count=10)
    write(root / "dog" / "bad.png", b"")

    output = CliRunner().invoke(app, ["check", str(root)]).output

    for words in (
        "class folders",
        "[b]cat",
        "validation",
        "10 to 10 pixels wide and 8 to 8 pixels high",
        "dog/bad.png: it is no",
    ):
        assert words in output
