"""Every command ends with a sentence and a status of its own kind, whatever it is given: never with a traceback."""

from pathlib import Path

import pytest
from click.testing import Result
from flwr.app import Context, RecordDict
from typer import Typer
from typer.testing import CliRunner

from common.config import ConfigError
from common.network import find_free_port
from common.terminal import OTHER_SIDE
from fedlmg_client import cli as client
from fedlmg_server import cli as server
from fedlmg_server import runs, server_app
from fedlmg_server.deployment import setup
from fedlmg_server.flower.connection import FlowerError
from fedlmg_server.monitor.progress import Follower
from fedlmg_server.quarantine import QuorumError

KINDS = ("binary", "nothing", "empty", "text", "folder-of-a-file")
"""What a path can be that is none of ours; see `paths`."""
CLIENT = [
    ["check", "PATH"],
    ["audit-images", "PATH", "--data", "PATH"],
    ["join", "localhost", "--data", "PATH", "--ca", "PATH"],
    ["join", "localhost", "--data", "PATH", "--key", "PATH", "--name", "a"],
    ["join", "localhost", "--data", "PATH", "--dry-run"],
    ["predict", "PATH", "--model", "PATH"],
    ["report", "PATH"],
    ["export", "--out", "OUT", "--model", "PATH"],
    ["personalise", "PATH", "--data", "PATH"],
    ["audit", "PATH", "--model", "PATH"],
]
SERVER = [
    ["run", "--config", "PATH"],
    ["run", "--server", "PATH"],
    ["plan", "PATH"],
    ["plan", "--config", "PATH"],
    ["forget", "a", "--workspace", "PATH"],
    ["pretrain", "--data", "PATH", "--out", "OUT"],
    ["watch", "PATH"],
    ["predict", "PATH", "PATH"],
    ["export", "PATH", "--out", "OUT"],
    ["server", "up", "PATH"],
    ["server", "renew", "PATH"],
    ["server", "status", "PATH"],
    ["server", "add-client", "a", "PATH", "--server", "PATH"],
    ["server", "remove-client", "a", "--server", "PATH"],
    ["bench", "baselines", "--config", "PATH", "--out", "OUT"],
    ["bench", "ablation", "--config", "PATH", "--out", "OUT"],
    ["bench", "images", "PATH", "--out", "OUT"],
    ["bench", "drift", "PATH", "--out", "OUT"],
    ["bench", "strength", "PATH", "--out", "OUT"],
]
COMMANDS = [(client.app, command) for command in CLIENT] + [(server.app, command) for command in SERVER]
IDS = [f"{'client' if app is client.app else 'server'} {' '.join(command)}" for app, command in COMMANDS]


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "text").write_text("[hello\n", encoding="utf-8")
    return {name: tmp_path / name for name in KINDS[:-1]} | {KINDS[-1]: tmp_path / "text" / KINDS[-1]}


def invoke(app: Typer, arguments: list[str]) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("kind", [*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[2:])])
@pytest.mark.parametrize(("app", "command"), COMMANDS, ids=IDS)
def test_a_wrong_path_gets_a_sentence_that_names_it(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Typer, command: list[str], kind: str
):
    monkeypatch.chdir(tmp_path)
    places = {"PATH": str(paths[kind]), "OUT": str(tmp_path / "out")}

    result = invoke(app, [places.get(part, part) for part in command])

    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    assert kind in result.output.replace("\n", "")


def test_a_rehearsal_says_that_its_cache_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"

    result = invoke(client.app, ["join", "localhost", "--data", str(tmp_path), "--dry-run", "--cache", str(cache)])

    assert result.exit_code == 1
    assert "cannot be written, choose another --cache" in result.output.replace("\n", " ")


@pytest.mark.parametrize(("app", "command"), COMMANDS, ids=IDS)
def test_wrong_usage_ends_with_2(app: Typer, command: list[str]):
    assert invoke(app, [*command, "--no-such-option"]).exit_code == 2


@pytest.mark.parametrize("app", [client.app, server.app])
def test_help_ends_with_0(app: Typer):
    assert invoke(app, ["--help"]).exit_code == 0


def test_a_server_that_is_down_ends_with_3(tmp_path: Path):
    made = setup.create_deployment(tmp_path / "server", ["localhost"], find_free_port(), find_free_port())

    result = invoke(server.app, ["server", "status", str(made.root)])

    assert result.exit_code == OTHER_SIDE
    assert "down: start it with" in result.output


@pytest.mark.parametrize(
    ("failure", "status"), [(FlowerError("x"), OTHER_SIDE), (ConfigError("x"), 1), (PermissionError(13, "x", "f"), 1)]
)
def test_a_run_that_fails_says_whose_fault_it_is(monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int):
    def fail(*_: object) -> str:
        raise failure

    monkeypatch.setattr(runs, "run_locally", fail)

    assert invoke(server.app, ["run"]).exit_code == status


@pytest.mark.parametrize(
    ("error", "is_mistake"), [(ConfigError("x"), True), (QuorumError("x"), False), (RuntimeError("x"), False)]
)
def test_the_run_itself_tells_whose_fault_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_mistake: bool
):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(server_app.preflight, "check_config", fail)
    follower = Follower(tmp_path / "events.jsonl", server.console)

    with pytest.raises(type(error)):
        server_app.app(None, Context(1, 1, {}, RecordDict(), {"workspace": str(tmp_path)}))

    assert follower.poll() == "x"
    assert follower.is_mistake is is_mistake
