import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from common.config import Config, ConfigError
from fedlmg_server.events import (
    ClientEvent,
    Loss,
    Progress,
    RunEvent,
    RunFailed,
    RunFinished,
    StageFinished,
    StageStarted,
    follow_events,
)
from fedlmg_server.monitor import tracking
from fedlmg_server.monitor.watch import State, render, watch_run
from fedlmg_server.workspace import Workspace

STARTED = StageStarted(time=100.0, name="synthesis")
ENDED = StageFinished(time=150.0, name="synthesis", seconds=50.0)


def progress(time: float, completed: int) -> Progress:
    return Progress(time=time, stage="synthesis", completed=completed, total=60, unit="images")


def shown(*events: RunEvent, now: float = 130.0) -> str:
    state, output = State(), io.StringIO()
    state.apply(events)
    Console(file=output, width=120).print(render(state, now))
    return output.getvalue()


def test_speed_and_time_left_leave_out_what_was_there_before():
    state = State()

    state.apply([STARTED, progress(110.0, 20), progress(120.0, 40)])

    assert state.stages["synthesis"].compute_speed() == 2.0
    assert state.stages["synthesis"].estimate_seconds_left() == 10.0


def test_finished_stage_shows_its_seconds_and_no_time_left():
    text = shown(STARTED, progress(110.0, 20), progress(120.0, 60), ENDED)

    assert "60/60 images" in text
    assert " 50 " in text
    assert " s " not in text


def test_newest_loss_replaces_the_one_before():
    losses = [Loss(series="distillation", step=step, value=1 / step) for step in (1, 2)]

    assert "0.5" in shown(*losses)
    assert "distillation" in shown(*losses)


def test_control_characters_of_clients_are_not_shown():
    client = ClientEvent(name="late\x1b[2J", state="failed", reason="[red]lost")

    assert "late [2J" in shown(client)
    assert "[red]lost" in shown(client)


def test_a_run_that_starts_again_is_not_over():
    state = State()

    state.apply([STARTED, RunFailed(reason="no disk"), STARTED])

    assert state.end is None


def test_events_are_read_as_they_were_written(tmp_path: Path):
    workspace = Workspace(tmp_path)
    written = [STARTED, progress(110.0, 20), Loss(series="distillation", step=1, value=float("inf")), RunFinished()]

    for event in written:
        workspace.log(event)

    assert list(workspace.read_events()) == written


def test_events_of_another_version_are_skipped(tmp_path: Path):
    lines = [
        '{"kind": "stage", "state": "paused"}',
        '{"kind": "loss", "value": "low"}',
        "[]",
        "{}",
        STARTED.model_dump_json(),
    ]

    (tmp_path / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))

    assert list(follow_events(tmp_path / "events.jsonl").read_new()) == [STARTED]


def test_a_finished_run_is_shown_once(tmp_path: Path):
    workspace, output = Workspace(tmp_path), io.StringIO()
    workspace.log(RunFinished())

    watch_run(tmp_path, Console(file=output, force_terminal=True))

    assert "finished" in output.getvalue()


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"holds no events\.jsonl"):
        watch_run(tmp_path, Console())


def test_events_become_figures_of_their_step():
    event = Loss(series="distillation", step=3, value=0.5)

    assert tracking.extract_numbers(event) == ({"loss/distillation": 0.5}, 3)


@pytest.mark.parametrize("name", ["nonsense", "mlflow"])
def test_a_tracker_that_cannot_be_had_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    config = Config.from_run_config({"workspace": str(tmp_path), "trackers": name})

    with pytest.raises(ConfigError, match=f"names '{name}'"), tracking.track_run(Workspace(tmp_path), config):
        pass


def test_tensorboard_gets_what_was_logged_in_the_run(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workspace = Workspace(tmp_path)
    config = Config.from_run_config({"workspace": str(tmp_path), "trackers": "tensorboard"})
    workspace.log(Loss(series="before", step=1, value=9.0))
    with tracking.track_run(workspace, config):
        workspace.log(Loss(series="distillation", step=4, value=0.25))

    written = EventAccumulator(str(tmp_path / "trackers" / "fedlmg")).Reload()
    assert [(scalar.step, scalar.value) for scalar in written.Scalars("loss/distillation")] == [(4, 0.25)]
    assert "loss/before" not in written.Tags()["scalars"]


@pytest.mark.parametrize(
    ("series", "name"), [("training, mnist", "loss/training/mnist"), ("training, ünï (1)", "loss/training/ünï _1_")]
)
def test_names_of_figures_are_such_as_every_tracker_takes(series: str, name: str):
    event = Loss(series=series, step=1, value=0.5)

    assert list(tracking.extract_numbers(event)[0]) == [name]


def test_a_tracker_that_breaks_does_not_break_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    pytest.importorskip("tensorboard")
    from accelerate.tracking import TensorBoardTracker

    def log(self, values, step=None):
        raise ConnectionError("no route")

    monkeypatch.setattr(TensorBoardTracker, "log", log)
    workspace = Workspace(tmp_path)

    with tracking.track_run(workspace, Config.from_run_config({"trackers": "tensorboard"})):
        workspace.log(Loss(series="distillation", step=4, value=0.25))

    assert capsys.readouterr().out == "tracker 'tensorboard' failed and gets no more values: no route\n"


def test_trackers_may_change_when_a_run_is_continued(tmp_path: Path):
    settings = {"workspace": str(tmp_path), "dataset": ""}
    Workspace.open(Config.from_run_config(settings), {})

    Workspace.open(Config.from_run_config(settings | {"trackers": "tensorboard"}), {})

    assert "trackers" not in json.loads((tmp_path / "run.json").read_text())["config"]
