"""`fedlmg-client check` ends with what to do next, and whatever it accepts, every other command accepts."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from common.clients import virtual_folders
from common.config import Config
from common.datasets.readers.image_files import SUFFIXES
from common.datasets.readers.tree import list_images
from fedlmg_client.cli import app
from fedlmg_server.pretraining import load_public_images
from tests.common.pictures import draw_classes, draw_noise

TINY = "image-size=16 local-epochs=1 architectures='small_mlp' statistics='global'"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder of links out of it, as DVC and Hugging Face keep them, whose name holds a hash."""
    folder = tmp_path / "C# images"
    for number, name in enumerate(("cat", "dog") * 4):
        target = draw_noise(tmp_path / "store" / f"{number}.png", number)
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number}.png").symlink_to(target)
    return folder


def test_the_last_line_says_what_is_used_what_is_left_out_and_the_next_command(tmp_path: Path):
    draw_classes(tmp_path / "pets", count=10)
    (tmp_path / "pets" / "readme.txt").touch()
    (tmp_path / "pets" / "cat" / "bad.png").touch()

    code, output = run("check", tmp_path / "pets")

    assert code == 0
    assert output.splitlines()[-1] == (
        "20 images of 2 classes will be used; 2 files are left out, see above; the next command is fedlmg-client join "
        f"HOST --data {tmp_path / 'pets'}"
    )


def test_check_of_a_single_image_does_not_ask_to_join(tmp_path: Path):
    draw_classes(tmp_path / "pets", ("cat",), count=1)

    code, output = run("check", tmp_path / "pets")

    assert (code, output.splitlines()[-1]) == (1, "training needs at least 2 images, but has 1: add images")


def test_links_out_are_refused_by_every_door_that_is_not_told_to_allow_them(linked: Path):
    for arguments in (["check", linked], ["join", "host", "--data", linked, "--dry-run", "--run-config", TINY]):
        code, output = run(*arguments)

        assert (code, "--allow-outside" in output) == (1, True)


def test_what_check_accepts_join_accepts_too(linked: Path, tmp_path: Path):
    code, output = run("check", linked, "--allow-outside")
    assert code == 0
    assert output.splitlines()[-1].endswith(f"join HOST --data '{linked}' --allow-outside")

    join = ("join", "host", "--data", linked, "--dry-run", "--cache", tmp_path / "cache", "--run-config", TINY)
    code, output = run(*join, "--allow-outside")

    assert (code, "nothing was sent" in output) == (0, True)


def test_the_server_reads_the_folders_that_its_operator_names_with_their_links(linked: Path):
    config = Config.from_run_config({"folders": str(linked), "dataset": "", "image-size": 16})

    virtual, _ = virtual_folders.load(0, config, None)

    assert virtual == load_public_images(str(linked), 16).class_names == ["cat", "dog"]


def test_a_large_image_is_left_out_until_check_is_told_to_allow_it(tmp_path: Path):
    draw_classes(tmp_path, count=3)
    Image.new("L", (400, 300)).save(tmp_path / "cat" / "large.png")

    (_, before), (_, after) = (run("check", tmp_path, "--max-megapixels", most) for most in (0.1, 0.2))

    assert "1 file is left out" in before
    assert "cat/large.png: it has 120,000 pixels, more than 100,000" in before
    assert "no file is left out" in after


def test_every_suffix_that_is_read_alone_is_found_in_a_folder(tmp_path: Path):
    names = {f"image{suffix}" for suffix in SUFFIXES} | {"IMAGE.JFIF"}
    for name in names:
        (tmp_path / name).touch()

    assert {path.name for path in list_images(tmp_path, {})} == names


@pytest.mark.parametrize("command", ["join", "audit", "audit-images", "personalise"])
def test_every_door_to_images_has_the_same_options(command: str):
    _, output = run(command, "--help")

    assert "--allow-outside" in output
    assert "--max-megapixels" in output


@pytest.mark.parametrize("classes", [("cat",), ("cat", "dog")])
def test_a_client_of_one_class_or_with_a_lone_last_image_trains(tmp_path: Path, classes: tuple[str, ...]):
    draw_classes(tmp_path / "pets", classes, count=7)
    join = ("join", "host", "--data", tmp_path / "pets", "--dry-run", "--cache", tmp_path / "cache", "--run-config")

    code, output = run(*join, "image-size=16 local-epochs=1 architectures='small_resnet' local-batch-size=4")

    assert (code, "nothing was sent" in output) == (0, True)


@pytest.mark.parametrize("key", ["local-batch-size", "student-batch-size"])
def test_a_batch_of_one_image_is_refused_in_one_sentence(tmp_path: Path, key: str):
    draw_classes(tmp_path / "pets")

    code, output = run("join", "host", "--data", tmp_path / "pets", "--dry-run", "--run-config", f"{key}=1")

    assert (code, output) == (1, f"config key '{key}' must be a whole number of at least 2, got 1\n")
