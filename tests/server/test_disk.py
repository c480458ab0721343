"""A full disk, one that cannot be written, a clock that jumps: a sentence each, and nothing lost."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from common.config import Config
from common.storage.tensors import write_tensors
from common.upload import is_whole
from fedlmg_server.cli import app
from fedlmg_server.server_app import explain_failure
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A small disk with these options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def do(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        return folder

    yield do
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_an_upload_that_does_not_fit_leaves_the_one_before_whole(mount: Mount):
    disk = mount("size=1m")
    first, second = make_upload("first", ["cat", "dog"], "small_mobilenet_v3"), make_upload("second", ["cat", "dog"])
    first.save(disk / "first")

    with pytest.raises(OSError, match="No space left") as failure:
        second.save(disk / "second")

    assert failure.value.errno == errno.ENOSPC
    assert is_whole(disk / "first")
    assert not is_whole(disk / "second")


def test_a_file_that_does_not_fit_leaves_its_former_self(mount: Mount):
    path = mount("size=1m") / "model.safetensors"
    write_tensors(path, {"weight": torch.ones(10)})
    before = path.read_bytes()

    with pytest.raises(OSError, match="No space left"):
        write_tensors(path, {"weight": torch.ones(1_000_000)})

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file_that_wants_space(mount: Mount):
    path = mount("size=1m") / "model.safetensors"

    with pytest.raises(OSError, match="No space left") as failure:
        write_tensors(path, {"weight": torch.ones(1_000_000)})

    assert explain_failure(failure.value).startswith(f"the disk is full, so {path} could not be written")


def test_a_disk_that_cannot_be_written_is_told_before_anything_starts(mount: Mount):
    disk = mount("ro,size=1m")

    done = CliRunner().invoke(app, ["run", "--workspace", str(disk / "run")])

    assert done.exit_code == 1
    assert "cannot be written: Read-only file system" in " ".join(done.output.split())


def test_a_second_run_on_the_same_workspace_is_told(tmp_path: Path):
    workspace = Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {})

    with workspace.lock():
        done = CliRunner().invoke(app, ["run", "--workspace", str(tmp_path)])

    assert done.exit_code == 1
    assert "another" in " ".join(done.output.split())


def test_a_clock_that_jumps_ends_no_stage_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {})
    now = time.time()

    with workspace.stage("uploads"):
        monkeypatch.setattr(time, "time", lambda: now + 86_400)

    assert workspace.stage_seconds()["uploads"] < 60
