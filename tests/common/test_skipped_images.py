"""Images that cannot be used, each by its name: all are listed and skipped, and the rest is kept."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.datasets.readers import folders
from fedlmg_client.cli import app
from tests.common import bad_folders
from tests.common.bad_folders import write
from tests.common.pictures import draw_classes, draw_noise

SKIPPED: dict[str, tuple[str, Callable[[Path], object]]] = {}
"""Name -> what the line says, and what to do to a good folder of cats and dogs."""

root = bad_folders.root


def skipped(reason: str):
    return lambda make: SKIPPED.setdefault(make.__name__, (reason, make))[1]


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
