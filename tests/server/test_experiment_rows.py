"""Rows of an experiment are measured once."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common.config import Config, ConfigError
from common.names import safe_name
from fedlmg_server.baselines import methods
from fedlmg_server.baselines.outcome import Cost, DoesNotApply, Outcome
from fedlmg_server.bench import grid
from fedlmg_server.bench.experiment import Experiment
from fedlmg_server.bench.grid import run_experiment
from fedlmg_server.diffusion.pretraining import tiny_pipeline
from fedlmg_server.events import RunFailed, RunFinished
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server.tiny_results import write_finished


@pytest.fixture
def finished(tmp_path: Path):
    """Makes a finished run of one untrained client in the workspace that it is told."""

    def make(keys: dict) -> str:
        workspace = Workspace.open(Config.from_run_config(keys), grid.read_versions())
        upload = saying(make_upload("a", [str(digit) for digit in range(10)]), data="digits/mnist")
        upload.save(workspace.upload("a"))
        write_finished(workspace, {}, {})
        workspace.log(RunFinished())
        return ""

    return make


def asking(**changes: object) -> Experiment:
    alone = {"num-clients": 1, "min-clients": 1, "warm-start": False, "witness": "off"}
    plain = Experiment({"skew": alone}, {}, [0, 1], ["dense", "fedavg-one-shot"], "", "", {})
    return replace(plain, **changes)


def test_finished_rows_stay_and_missing_ones_are_measured(tmp_path: Path, finished, monkeypatch: pytest.MonkeyPatch):
    measured = []

    def measure(method, run):
        measured.append((method, run.config.seed))
        if method == "fedavg-one-shot":
            raise DoesNotApply("unlike architectures")
        return Outcome({"a": 0.25}, Cost(rounds=1))

    monkeypatch.setattr(methods, "measure_method", measure)
    first = run_experiment(asking(), tmp_path, finished, Console(file=StringIO()))
    (tmp_path / "rows" / "skew" / "dense" / "seed-1.json").unlink()
    measured.clear()

    again = run_experiment(asking(), tmp_path, finished, Console(file=StringIO()))

    assert measured == [("dense", 1)]
    assert again == first
    assert [(row.method, row.accuracy, row.note) for row in first[:2]] == [
        ("dense", 0.25, ""),
        ("fedavg-one-shot", None, "unlike architectures"),
    ]


def test_rows_of_other_settings_are_not_taken_for_these(tmp_path: Path, finished, monkeypatch: pytest.MonkeyPatch):
    accuracies = iter([0.25, 0.5])
    monkeypatch.setattr(methods, "measure_method", lambda method, run: Outcome({"a": next(accuracies)}, Cost()))
    one = asking(seeds=[0], methods=["dense"])
    run_experiment(one, tmp_path, finished, Console(file=StringIO()), tmp_path / "runs-1")

    skewed = {"skew": one.settings["skew"] | {"images-per-class": 3}}
    other = run_experiment(replace(one, settings=skewed), tmp_path, finished, Console(file=StringIO()), tmp_path / "2")

    assert [row.accuracy for row in other] == [0.5]


def test_rows_stay_however_long_a_run_may_wait(tmp_path: Path, finished, monkeypatch: pytest.MonkeyPatch):
    accuracies = iter([0.25, 0.5])
    monkeypatch.setattr(methods, "measure_method", lambda method, run: Outcome({"a": next(accuracies)}, Cost()))
    one = asking(seeds=[0], methods=["dense"])
    first = run_experiment(one, tmp_path, finished, Console(file=StringIO()))
    patient = {"skew": one.settings["skew"] | {"deadline-seconds": 9.0}}

    again = run_experiment(replace(one, settings=patient), tmp_path, finished, Console(file=StringIO()))

    assert again == first


def test_a_row_says_how_many_clients_did_not_answer(tmp_path: Path, finished, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(methods, "measure_method", lambda method, run: Outcome({"a": 0.25}, Cost()))
    asked = asking(settings={"skew": {"num-clients": 3, "min-clients": 1}}, seeds=[0], methods=["dense"])

    run_experiment(asked, tmp_path, finished, Console(file=StringIO()))

    assert "- dense, seed 0: without 2 of 3 clients" in (tmp_path / "table.md").read_text()


def test_what_needs_no_training_is_measured_on_a_run_without_baselines(tmp_path: Path, finished):
    asked = asking(seeds=[0], methods=["local-all", "fedlmg-fine-tuning"])

    local, untrained = run_experiment(asked, tmp_path, finished, Console(file=StringIO()))

    assert (list(local.per_client), local.accuracy) == (["a"], local.per_client["a"])
    assert "fedlmg run --compare" in untrained.note


def test_a_run_that_failed_after_its_first_results_is_started_again(tmp_path: Path, finished):
    asked, started = asking(seeds=[0], methods=["local-all"]), []

    def fail(keys: dict) -> str:
        finished(keys)
        Workspace.open(Config.from_run_config(keys), grid.read_versions()).log(RunFailed(reason="no memory"))
        return "no memory"

    with pytest.raises(ConfigError, match="no memory"):
        run_experiment(asked, tmp_path, fail, Console(file=StringIO()))
    run_experiment(asked, tmp_path, lambda keys: started.append(keys) or finished(keys), Console(file=StringIO()))

    assert len(started) == 1


def test_a_run_that_fails_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="setting 'skew' with seed 0 failed: no quorum"):
        run_experiment(asking(), tmp_path, lambda keys: "no quorum", Console(file=StringIO()))


@pytest.mark.slow
def test_variants_draw_anew_on_a_runs_uploads(tmp_path: Path, finished):
    tiny_pipeline.build_pipeline(channels=(16, 32)).save_pretrained(tmp_path / "pipeline")
    keys = {"diffusion-model": str(tmp_path / "pipeline"), "images-per-class": 1, "num-inference-steps": 2}
    keys |= {"warm-start": False, "witness": "off"}
    keys |= {"min-confidence": 0.0, "student-epochs": 1, "teacher-weighting": "uniform"}
    variants = {"plain": {}, "M = 0": {"noise-editing-steps": 0}}
    asked = asking(settings={"skew": keys}, variants=variants, seeds=[0], methods=[])

    found, again = (run_experiment(asked, tmp_path, finished, Console(file=StringIO())) for _ in range(2))

    assert [(row.method, row.num_images) for row in found] == [("plain", 10), ("M = 0", 10)]
    assert again == found
    # What is the run itself is not generated twice.
    assert [path.name for path in (tmp_path / "variants" / "skew").iterdir()] == [safe_name("M = 0")]
    assert json.loads((tmp_path / "rows" / "skew" / "plain" / "seed-0.json").read_text())["row"]["kept"] == 1.0
