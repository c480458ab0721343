"""Files of experiments are checked, and the small data that try them out are like the true ones."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.config import Config, ConfigError
from common.datasets.readers import folders
from fedlmg_server.bench import experiment, smoke
from fedlmg_server.cli import app

EXPERIMENTS = Path(__file__).resolve().parents[2] / "deploy" / "experiments"
RUNS = ("digits-large.toml", "hostile.toml", "overlap.toml")
"""Configs of `fedlmg run`."""
FILES = sorted(path for path in EXPERIMENTS.rglob("*.toml") if path.name not in RUNS)


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
