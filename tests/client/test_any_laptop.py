"""The client, and `fedlmg run`, need nothing that POSIX systems alone have: neither in Python nor as programs."""

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.models import architectures
from common.network import find_free_port
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.vision.preprocessing import PreprocessSpec
from tests.commands_in_turn import run_in_turn
from tests.common.pictures import draw_classes
from tests.laptop.names import NO_MODULES, NO_NAMES

ROOT = Path(__file__).resolve().parents[2]
ON_SERVERS_ALONE = ("deployment",)
"""Rooms of the server that no `fedlmg run` with virtual clients imports; they need nginx, too."""
PROGRAMS = frozenset({"openssl", "ps", "ssh-keygen", "kill", "which", "sh", "bash", "taskset", "df", "nproc"})


def our_files() -> list[Path]:
    files = [
        path for package in ("common", "fedlmg_client", "fedlmg_server") for path in (ROOT / package).rglob("*.py")
    ]
    return [path for path in files if not set(ON_SERVERS_ALONE) & set(path.parts)]


def walk_unguarded(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if hasattr(...)`."""
    if isinstance(node, ast.If) and "hasattr(" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_unguarded(child)


def named_here_alone(path: Path) -> Iterator[str]:
    for node in walk_unguarded(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (f"{place} {name}" for name in names if name.split(".")[0] in NO_MODULES)
        name = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
        if name and getattr(node, "attr", "") in NO_NAMES.get(name, ()):
            yield f"{place} {ast.unparse(node)}"
        if isinstance(node, ast.keyword) and node.arg in ("preexec_fn", "start_new_session"):
            yield f"{place} {node.arg}"
        first = node.elts[0] if isinstance(node, ast.List) and node.elts else None
        if isinstance(first, ast.Constant) and first.value in PROGRAMS:
            yield f"{place} {first.value}"


def test_nothing_of_posix_alone_is_named():
    assert [found for path in our_files() for found in named_here_alone(path)] == []


@pytest.fixture
def laptop(tmp_path: Path) -> dict[str, str]:
    """The environment of a system without these functions and programs."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "laptop"), str(ROOT)])}
    home = {"HOME": str(tmp_path / "home"), "FEDLMG_CACHE": str(tmp_path / "home" / "cache")}
    return os.environ | paths | home | {"PATH": str(Path(sys.executable).parent)}


def test_the_laptop_of_these_tests_lacks_them(laptop: dict[str, str], tmp_path: Path):
    package = tmp_path / "common"
    package.mkdir()
    (package / "__init__.py").write_text("import os, signal\nprint(hasattr(os, 'fork'), hasattr(signal, 'SIGKILL'))\n")

    done = subprocess.run(
        [sys.executable, "-c", "import os, common; print(hasattr(os, 'path'))"],
        env=laptop,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.stdout == "False False\nTrue\n", done.stderr


@pytest.mark.slow
def test_every_command_of_a_client_works_there(laptop: dict[str, str], tmp_path: Path):
    for split in ("train", "validation", "test"):
        draw_classes(tmp_path / "images" / split, count=2)
    write_tensors(tmp_path / "model" / "model.safetensors", architectures.build("small_mlp", 2, 32).state_dict())
    spec = PreprocessSpec(image_size=32).to_json()
    described = {"architecture": "small_mlp", "class_names": ["cat", "dog"], "preprocessing": spec}
    write_json(tmp_path / "model" / "model.json", described)
    commands = [
        ["keygen", "key"],
        ["check", "images"],
        ["join", "localhost", "--data", "images", "--dry-run", "--run-config", "local-epochs=1 dataset=''"],
        ["predict", "images", "--model", "model"],
        ["export", "--model", "model", "--out", "exported"],
    ]

    statuses, said = run_in_turn("fedlmg_client.cli", commands, env=laptop, cwd=tmp_path, encoding="utf-8")

    assert statuses == [0] * len(commands), said
    assert (tmp_path / "key.pub").exists()
    assert (tmp_path / "exported" / "model.onnx").exists()


@pytest.mark.slow
def test_a_client_joins_and_leaves_there(laptop: dict[str, str], tmp_path: Path):
    draw_classes(tmp_path / "images" / "train", count=2)
    log, port = tmp_path / "join.log", find_free_port()
    command = ["join", f"127.0.0.1:{port}", "--insecure", "--data", "images", "--name", "a", "--cache", "cache"]

    with open(log, "wb") as file:
        client = subprocess.Popen(
            [sys.executable, "-m", "fedlmg_client.cli", *command], env=laptop, cwd=tmp_path, stdout=file, stderr=file
        )
    deadline = time.monotonic() + 200
    while f"nothing listens at 127.0.0.1:{port}" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    client.terminate()
    client.wait(60)

    assert f"nothing listens at 127.0.0.1:{port}" in log.read_text(), (tmp_path / "cache" / "supernode.log").read_text()
    assert "You left the federation" in log.read_text()


@pytest.mark.slow
def test_a_run_works_there_also_behind_a_proxy(laptop: dict[str, str], tmp_path: Path):
    from fedlmg_server.diffusion.pretraining import tiny_pipeline
    from tests.e2e.test_simulation import TINY, command

    tiny_pipeline.build_pipeline().save_pretrained(tmp_path / "pipeline")
    settings = TINY | {"diffusion-model": str(tmp_path / "pipeline")}
    nobody = f"http://127.0.0.1:{find_free_port()}"
    # Ray, as it is made for this system, starts its processes by bash.
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "bash").symlink_to(str(shutil.which("bash")))
    path = os.pathsep.join([laptop["PATH"], str(programs)])

    done = subprocess.run(
        command(tmp_path, settings),
        env=laptop | {"PATH": path, "HTTP_PROXY": nobody, "http_proxy": nobody},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=900,
    )

    assert done.returncode == 0, done.stdout + done.stderr
