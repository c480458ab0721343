"""`fedlmg run`: where a run goes, and what it is told."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedlmg_server import cli, runs
from fedlmg_server.cli import app
from fedlmg_server.flower.connection import to_toml


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What reaches the run: `where` it goes, and its overrides."""
    found: dict = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cli.Deployment, "load", lambda folder: str(folder))
    monkeypatch.setattr(runs, "run_locally", lambda overrides, _: found.update(where="local", **overrides) or "")
    monkeypatch.setattr(runs, "run_on_server", lambda at, overrides, _: found.update(where=at, **overrides) or "")
    return found


def test_a_run_is_local_and_in_runs_default(told: dict, tmp_path: Path):
    CliRunner().invoke(app, ["run"])

    assert told == {"where": "local", "workspace": str(tmp_path / "runs" / "default")}


def test_the_servers_folder_may_come_from_the_environment(told: dict):
    CliRunner().invoke(app, ["run"], env={"FEDLMG_SERVER": "/srv/fedlmg"})

    assert told == {"where": "/srv/fedlmg"}


@pytest.mark.parametrize("options", [[], ["--server", "/srv/fedlmg"]], ids=["local", "server"])
@pytest.mark.parametrize(("given", "folder"), [("~/mine", "home/mine"), ("runs/mine", "runs/mine")])
def test_a_workspace_is_resolved_here(told: dict, tmp_path: Path, options: list[str], given: str, folder: str):
    (tmp_path / "run.toml").write_text(f"workspace = '{given}'")

    CliRunner().invoke(app, ["run", "--config", "run.toml", *options])

    assert told["workspace"] == str(tmp_path / folder)


def test_options_of_the_command_go_with_the_run(told: dict):
    CliRunner().invoke(app, ["run", "--compare", "--trackers", "tensorboard", "--workspace", "/srv/run"])

    assert told == {"where": "local", "workspace": "/srv/run", "compare": True, "trackers": "tensorboard"}


def test_a_key_of_an_earlier_version_is_told_in_its_file(told: dict, tmp_path: Path):
    (tmp_path / "run.toml").write_text("federation = 'emoji'")

    result = CliRunner().invoke(app, ["run", "--config", "run.toml"])

    assert result.exit_code == 1
    assert "config key 'federation' is now called 'dataset'" in " ".join(result.output.split())


def test_a_run_cannot_go_to_two_places(told: dict):
    result = CliRunner().invoke(app, ["run", "lab", "--server", "/srv/fedlmg"])

    assert result.exit_code == 1
    assert "either the server in /srv/fedlmg or the connection 'lab'" in " ".join(result.output.split())
    assert told == {}


def test_a_run_config_is_toml_whatever_characters_it_holds():
    config = {"workspace": "/srv/\U0001f600", "class-aliases": 'a "b"\\n=c', "seed": 3, "compare": True}

    assert tomllib.loads(to_toml(config)) == config


def test_help_explains_the_arguments_of_a_command():
    shown = CliRunner().invoke(app, ["forget", "--help"]).output

    assert "Name of the client" in " ".join(shown.split())


def test_a_python_that_ray_cannot_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs.sys, "executable", "/home/me/my nets/.venv/bin/python")

    result = CliRunner().invoke(app, ["run", "--workspace", str(tmp_path / "run")])

    assert result.exit_code == 1
    assert "'/home/me/my nets/.venv/bin/python', has a blank" in " ".join(result.output.split())
