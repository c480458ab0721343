"""Experiments: files that are checked, rows that are made once, tables that say what was measured."""

import csv
import json
import re
import tomllib
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from common.config import Config, ConfigError
from common.datasets.readers import folders
from common.names import safe_name
from fedlmg_server.baselines import methods
from fedlmg_server.baselines.outcome import Cost, DoesNotApply, Outcome
from fedlmg_server.bench import experiment, grid, rows, smoke
from fedlmg_server.bench.experiment import Experiment
from fedlmg_server.bench.grid import run_experiment
from fedlmg_server.bench.rows import Row
from fedlmg_server.cli import app
from fedlmg_server.diffusion.pretraining import tiny_pipeline
from fedlmg_server.events import RunFailed, RunFinished
from fedlmg_server.report import plots
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server.tiny_results import write_finished

EXPERIMENTS = Path(__file__).resolve().parents[2] / "deploy" / "experiments"
RUNS = ("digits-large.toml", "hostile.toml", "overlap.toml")
"""Configs of `fedlmg run`."""
FILES = sorted(path for path in EXPERIMENTS.rglob("*.toml") if path.name not in RUNS)
ROW = Row(
    **{"setting": "skew", "method": "plain", "seed": 0, "accuracy": 0.5, "per_client": {"a": 0.5}},
    **{"num_images": 4, "server_seconds": 2.0, "upload_bytes": 10**6},
)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_experiment_is_valid(file: Path, tmp_path: Path):
    asked = experiment.read(file, tmp_path)

    assert asked.layout in smoke.LAYOUTS
    assert list(asked.cells())


@pytest.mark.parametrize("name", RUNS)
def test_every_config_of_a_run_is_valid(name: str):
    assert Config.from_run_config(tomllib.loads((EXPERIMENTS / name).read_text()))


@pytest.mark.parametrize("words", [["paper/nico-common.toml"], ["paper", "deploy/experiments/paper/nico-common.toml"]])
def test_an_experiment_of_the_paper_is_found_by_its_file(monkeypatch: pytest.MonkeyPatch, words: list[str]):
    monkeypatch.chdir(EXPERIMENTS.parents[1])

    done = CliRunner().invoke(app, ["bench", *words])

    assert done.exit_code == 1
    assert "nico-common.toml needs its data" in " ".join(done.output.split())


@pytest.mark.parametrize("file", sorted((EXPERIMENTS / "paper").glob("*.toml")), ids=lambda path: path.stem)
def test_every_paper_experiment_states_protocol_data_hours_and_figures(file: Path):
    text = file.read_text()

    assert all(f"# {word}" in text for word in ("Protocol:", "Data:", "GPU-hours, estimated", "Published, %"))
    assert "[published." in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images-per-class = 3", "has neither `methods` nor"),
        ("[variants.a]\nimages = 3", "unknown config key 'images'"),
        ("[variants", "cannot be read"),
        ('methods = ["fedsgd"]', "names the method 'fedsgd'"),
        ('methods = "all"\nfolders = "{data}/a"', "needs its data"),
        ('methods = "all"\n[published.other]', "published figures of 'other'"),
        ('methods = "all"\n[published.default]\ndnse = 1.0', "a published figure of 'dnse', no row of 'default'"),
        ("seeds = 3", "seeds = 3; write a list of whole numbers"),
        ('methods = "dense"', "methods = 'dense'; write a list of names"),
        ("settings = 3", r"settings = 3; write tables: \[settings.NAME\]"),
        ("[variants]\nsmall = 3", r"variants that are no tables; write tables: \[variants.NAME\]"),
    ],
)
def test_file_that_is_no_experiment_is_told(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.toml").write_text(text)

    with pytest.raises(ConfigError, match=message):
        experiment.read(tmp_path / "a.toml")


@pytest.mark.parametrize("layout", ["domainnet", "nico", "open-image"])
def test_small_data_are_found_as_the_true_ones_would_be(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(smoke, "CLASSES", ("bear", "bus"))
    parts = {
        "domainnet": ["clipart"],
        "nico": ["NICO_DG/autumn", "NICO_unique#2", "NICO_DG"],
        "open-image": ["client-3"],
    }

    data = smoke.data(layout, tmp_path / "data")

    for part in parts[layout]:
        found = folders.load(data / part, 16)
        assert found.class_names == ["bear", "bus"]
        domains = 6 if part == "NICO_DG" else 1
        assert [len(found.splits[split]) for split in ("train", "test")] == [6 * domains, 2 * domains]


@pytest.mark.parametrize("part", ["tecom", "public"])
def test_a_small_laboratory_is_a_folder_of_classes(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(smoke, "CLASSES", ("bear", "bus"))

    found = folders.load(smoke.data("laboratories", tmp_path / "data") / part, 16)

    assert found.class_names == ["bear", "bus"]
    assert sum(map(len, found.splits.values())) == 2 * (smoke.NUM_TRAIN + smoke.NUM_TEST)


def test_table_has_mean_spread_published_figure_and_what_does_not_apply():
    several = [ROW, replace(ROW, seed=1, accuracy=0.7, per_client={"a": 0.7})]
    refused = Row(setting="skew", method="fedavg", seed=0, note="unlike architectures")

    table = rows.markdown([*several, refused], {"skew": {"plain": 61.5}})

    assert "| plain | 60.0 ± 14.1 | 61.5 | 0 | 0 | 1.0 | 0.0 | 0 | 2 | 4 |" in table
    assert "- fedavg does not apply: unlike architectures" in table


def test_rows_are_compared_with_the_default_seed_by_seed():
    base = [replace(ROW, method="default", seed=seed, accuracy=accuracy) for seed, accuracy in ((0, 0.5), (1, 0.7))]
    other = [replace(ROW, seed=seed, accuracy=accuracy) for seed, accuracy in ((0, 0.52), (1, 0.76), (2, 0.1))]

    table = rows.markdown([*base, *other], {})

    assert "| plain | 46.0 ± 33.4 | +4.0 ± 2.8 |" in table


def test_table_and_csv_have_balanced_accuracies_and_intervals_of_few_test_images():
    known = replace(ROW, balanced_accuracy=0.4, balanced_per_client={"a": 0.4}, test_images={"a": 39})

    table, (line,) = rows.markdown([known], {}), csv.DictReader(StringIO(rows.as_csv([known])))

    assert "| plain | 50.0 | 40.0 | 0 |" in table
    assert "| plain | 50.0 (35\N{EN DASH}65) |" in table
    assert "| plain | 40.0 |\n" in table
    assert (line["balanced_accuracy"], line["balanced accuracy a"]) == ("0.4", "0.4")


def test_csv_has_a_line_a_row_and_a_column_a_client():
    text = rows.as_csv([ROW, replace(ROW, per_client={"b": 0.25})])

    first, second = csv.DictReader(StringIO(text))
    assert (first["accuracy a"], second["accuracy b"], second["accuracy a"]) == ("0.5", "0.25", "")


def test_every_setting_gets_its_four_plots(tmp_path: Path):
    rows.write([ROW, replace(ROW, method="other", num_images=0, server_seconds=3.0, upload_bytes=1)], {}, tmp_path)

    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"skew-{kind}.svg" for kind in ("clients", "images", "seconds", "bytes")}


def test_plot_by_client_shows_balanced_accuracies_where_all_rows_have_them(tmp_path: Path):
    known = replace(ROW, balanced_accuracy=0.4, balanced_per_client={"a": 0.4})

    rows.write([known, replace(known, setting="mixed"), replace(ROW, setting="mixed", method="other")], {}, tmp_path)

    shown = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "plots").iterdir()}
    assert ">balanced accuracy, %; the bar is the mean<" in shown["skew-clients.svg"]
    assert ">accuracy, %; the bar is the mean<" in shown["mixed-clients.svg"]


def test_a_cost_that_all_share_has_no_plot(tmp_path: Path):
    rows.write([ROW, replace(ROW, method="other", num_images=0)], {}, tmp_path)

    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"skew-clients.svg", "skew-images.svg"}


def test_costs_are_written_as_numbers_on_their_axis():
    svg = plots.scatter({"few": (50.0, 60.0), "many": (3000.0, 80.0)}, "synthetic images").decode()

    assert {">50<", ">100<", ">2 k<"} <= set(re.findall(r">[^<>]+<", svg))


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
