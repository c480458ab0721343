"""What a command prints survives an output that is not UTF-8: no row is lost, and no traceback shown."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.models.architectures import build
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.vision.preprocessing import PreprocessSpec
from tests.commands_in_turn import run_in_turn
from tests.common.pictures import draw_classes

ENCODINGS = ("ascii", "cp1252", "utf-8")
NAMES = ["猫", "Größe"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose classes have names of other scripts, beside the folder `猫` of two images."""
    folder = tmp_path_factory.mktemp("encoding")
    spec = PreprocessSpec(image_size=32)
    torch.manual_seed(0)
    write_tensors(folder / "model" / "model.safetensors", build("small_mlp", 2, 32).state_dict())
    described = {"architecture": "small_mlp", "class_names": NAMES, "preprocessing": spec.to_json()}
    write_json(folder / "model" / "model.json", described)
    draw_classes(folder / "images" / "train", count=2)
    for old, new in zip(sorted((folder / "images" / "train").iterdir()), NAMES, strict=False):
        old.rename(old.with_name(new))
    return folder


def run(module: str, *arguments: object, encoding: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("module", ["fedlmg_client.cli", "fedlmg_server.cli"])
def test_every_row_of_a_prediction_is_printed(model: Path, module: str, encoding: str):
    chosen = ["--model", model / "model"] if "client" in module else []
    places = [model / "images"] if chosen else [model / "model", model / "images"]

    done = run(module, "predict", *places, *chosen, encoding=encoding)

    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(encoding))))
    assert done.returncode == 0, done.stderr
    assert len(rows) == len(list((model / "images").rglob("*.png")))
    assert {row["class"] for row in rows} <= {
        name.encode(encoding, "backslashreplace").decode(encoding) for name in NAMES
    }
    assert (b"PYTHONIOENCODING" in done.stderr) is (encoding != "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_prediction_as_json_keeps_every_name(model: Path, encoding: str):
    done = run("fedlmg_server.cli", "predict", model / "model", model / "images", "--json", encoding=encoding)

    rows = json.loads(done.stdout.decode(encoding))
    assert done.returncode == 0, done.stderr
    assert {row["class"] for row in rows} <= set(NAMES)
    assert all(Path(row["path"]).exists() for row in rows)


CLIENT = [
    (["check", "IMAGES"], 0),
    (["--help"], 0),
    (["join", "--help"], 0),
    (["猫"], 2),
    (["check", "nosuch-猫"], 1),
    (["keygen", "NEW"], 0),
    (["personalise", "--name", "猫", "--data", "IMAGES"], 1),
    (["join", "localhost", "--data", "nosuch-猫"], 1),
    (["join", "猫/", "--data", "IMAGES"], 1),
]
SERVER = [
    (["--help"], 0),
    (["run", "--run-config", "dataset='猫'"], 1),
    (["plan", "nosuch-猫"], 1),
    (["watch", "nosuch-猫"], 1),
    (["forget", "猫", "--workspace", "nosuch-猫"], 1),
    (["server", "init", "NEW", "--host", "猫"], 1),
    (["server", "init", "NEW", "--host", "localhost"], 0),
    (["server", "status", "NEW"], 3),
    (["server", "status", "nosuch-猫"], 1),
    (["bench", "paper", "nosuch-猫.toml"], 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(("module", "commands"), [("fedlmg_client.cli", CLIENT), ("fedlmg_server.cli", SERVER)])
def test_no_command_fails_at_a_character(
    model: Path, tmp_path: Path, module: str, commands: list[tuple[list[str], int]], encoding: str
):
    places = {"IMAGES": str(model / "images" / "train"), "NEW": str(tmp_path / "猫" / "new")}
    given = [[places.get(part, part) for part in command] for command, _ in commands]

    environment = os.environ | {"PYTHONIOENCODING": encoding}
    statuses, said = run_in_turn(module, given, env=environment, encoding=encoding)

    assert statuses == [status for _, status in commands], said
