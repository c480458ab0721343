"""A workspace belongs to one config from its first upload on."""

import time
from pathlib import Path

import pytest

from common.config import Config, ConfigError
from fedlmg_server.workspace import Workspace


def make(folder: Path, **settings: object) -> Workspace:
    return Workspace.open(Config.from_run_config({"workspace": str(folder), **settings}), {})


def test_a_workspace_without_uploads_takes_a_new_config_and_forgets_what_the_old_one_made(tmp_path: Path):
    workspace = make(tmp_path, **{"diffusion-model": "digitz"})
    workspace.general.mkdir()
    workspace.fix_class_names(["0"])
    workspace.class_notes.note_told({"a": {"0": "unknown"}})

    again = make(tmp_path, **{"diffusion-model": "digits"})

    assert Workspace.existing(tmp_path)[1].synthesis.diffusion_model == "digits"
    assert again.fixed_class_names == []
    assert again.class_notes.told == {}


@pytest.mark.parametrize("folder", ["uploads/a", "quarantine/a", "model"])
def test_a_workspace_with_an_upload_keeps_its_config(tmp_path: Path, folder: str):
    make(tmp_path, seed=1)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "manifest.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"was made with another config \(seed: 1 -> 2\): use that config again"):
        make(tmp_path, seed=2)


def test_a_workspace_that_another_run_uses_takes_no_new_config(tmp_path: Path):
    workspace = make(tmp_path, seed=1)

    with workspace.lock(), pytest.raises(ConfigError, match="another run is using workspace"):
        make(tmp_path, seed=2)


def test_a_command_that_is_refused_changes_nothing_of_the_run_that_goes_on(tmp_path: Path):
    workspace = make(tmp_path)

    with workspace.lock(), pytest.raises(ConfigError, match="another run is using workspace"):
        make(tmp_path, **{"num-clients": 9})

    assert Workspace.existing(tmp_path)[1].clients.num_clients == 4


def test_a_stage_that_an_error_ends_keeps_its_seconds_and_its_images(tmp_path: Path):
    workspace = make(tmp_path)

    def be_stopped() -> None:
        with workspace.stage("synthesis") as work:
            time.sleep(0.05)
            work.images = 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_stopped()

    assert workspace.stage_seconds()["synthesis"] >= 0.05
    assert workspace.stage_images()["synthesis"] == 3
