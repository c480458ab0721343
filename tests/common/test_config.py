"""Settings: one place for the defaults, one clear sentence for a bad key or value."""

import json
import tomllib
from pathlib import Path

import pytest

from common.config import Config, ConfigError
from fedlmg_server.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def test_pyproject_lists_the_defaults():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["tool"]["flwr"]["app"]["config"] == Config().to_run_config()


def test_run_config_round_trip():
    flat = Config().to_run_config() | {"local-epochs": 3, "federation": "", "statistics-weight": 0.5}

    assert Config.from_run_config(flat).to_run_config() == flat


def test_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown config key 'local-epoch'; did you mean 'local-epochs'"):
        Config.from_run_config({"local-epoch": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("local-epochs", "3"),
        ("local-epochs", 0),
        ("local-epochs", True),
        ("compare", 1),
        ("aggregation", "fedavg"),
        ("guidance-start", 2.0),
        ("min-clients", 9),
        ("deadline-seconds", float("inf")),
        ("deadline-seconds", -5.0),
        ("student-learning-rate", float("nan")),
        ("student-learning-rate", -1.0),
        ("local-learning-rate", 0.0),
        ("temperature", 0.0),
        ("noise-editing-steps", -3),
        ("guidance-strength", -0.1),
        ("seed", 2**70),
        ("seed", -1),
        ("client-sizes", "\u00b2"),
        ("dp-epsilon", -1.0),
        ("max-upload-megabytes", 0.0),
    ],
)
def test_impossible_value_names_the_key(key: str, value: object):
    with pytest.raises(ConfigError, match=f"'{key}'"):
        Config.from_run_config({key: value})


def test_workspace_of_another_config_is_refused_with_the_difference(tmp_path: Path):
    Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {})

    with pytest.raises(ConfigError, match=r"local-epochs: \d+ -> 3"):
        Workspace.open(Config.from_run_config({"workspace": str(tmp_path), "local-epochs": 3}), {})


@pytest.mark.parametrize("content", ['{"config": {"se', "[]", "{}", '{"config": 3}'])
def test_workspace_whose_record_is_broken_is_told(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(ConfigError, match=r"run\.json is no record of a run"):
        Workspace.existing(tmp_path)
    with pytest.raises(ConfigError, match=r"run\.json is no record of a run"):
        Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {})


def test_workspace_made_before_a_key_existed_goes_on_with_its_default(tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path)})
    Workspace.open(config, {})
    made = json.loads((tmp_path / "run.json").read_text())
    del made["config"]["dp-epsilon"]
    (tmp_path / "run.json").write_text(json.dumps(made))

    Workspace.open(config, {})

    with pytest.raises(ConfigError, match=r"dp-epsilon: 0\.0 -> 8\.0"):
        Workspace.open(Config.from_run_config({"workspace": str(tmp_path), "dp-epsilon": 8.0}), {})


def test_workspace_that_another_run_holds_is_refused(tmp_path: Path):
    workspace = Workspace(tmp_path)

    with workspace.lock(), pytest.raises(ConfigError, match="another run is using"), workspace.lock():
        pass


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 300, "Klinik Süd"])
def test_client_name_becomes_a_harmless_folder_inside_uploads(tmp_path: Path, name: str):
    workspace = Workspace(tmp_path)

    folder = workspace.upload(name)

    assert folder.resolve().parent == workspace.uploads.resolve()


def test_preset_fills_only_the_keys_left_at_their_defaults():
    config = Config.from_run_config({"preset": "exact", "num-inference-steps": 20})

    assert config.synthesis.guidance_gradient == "full"
    assert config.synthesis.num_inference_steps == 20


def test_preset_read_back_from_a_workspace_is_the_same_config():
    config = Config.from_run_config({"preset": "fast"})

    assert Config.from_run_config(config.to_run_config()) == config
