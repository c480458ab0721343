"""`fedlmg run` as its user runs it: real SuperLink, Ray, clients, pipeline; tiny settings, the tests' tiny pipeline."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedlmg_server.bench import experiment

FEDLMG = Path(sys.executable).parent / "fedlmg"
TINY = {
    "num-clients": 2,
    "local-epochs": 1,
    "images-per-class": 1,
    "num-inference-steps": 2,
    "noise-editing-steps": 1,
    "min-confidence": 0.0,
    "student-epochs": 1,
    "general-updates": 1,
    "num-general-images": 20,
    "compare": False,
}


def fedlmg_run(folder: Path, settings: dict[str, object], **options: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, settings), cwd=folder, capture_output=True, text=True, **options)


def command(folder: Path, settings: dict[str, object]) -> list[str]:
    pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    return [str(FEDLMG), "run", "--workspace", str(folder / "workspace"), "--run-config", pairs]


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained pipeline: what it draws does not matter here."""
    from fedlmg_server.diffusion.pretraining import tiny_pipeline

    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.build_pipeline().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_run_ends_well_and_the_same_command_keeps_its_images(tmp_path: Path, pipeline_folder: Path):
    settings = TINY | {"diffusion-model": str(pipeline_folder)}
    first = fedlmg_run(tmp_path, settings)
    images = {path: path.stat().st_mtime_ns for path in (tmp_path / "workspace" / "synthetic").rglob("*.png")}

    second = fedlmg_run(tmp_path, settings)

    results = json.loads((tmp_path / "workspace" / "report" / "results.json").read_text())
    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout
    assert len(results["clients"]) == 2
    assert None not in [client["aggregated_accuracy"] for client in results["clients"].values()]
    assert len(images) == 20
    assert {path: path.stat().st_mtime_ns for path in images} == images


@pytest.mark.slow
def test_a_private_run_tells_its_budget(tmp_path: Path, pipeline_folder: Path):
    settings = TINY | {"diffusion-model": str(pipeline_folder), "dp-epsilon": 8.0}

    done = fedlmg_run(tmp_path, settings)

    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "workspace" / "report" / "results.json").read_text())
    assert {client["privacy"]["epsilon"] for client in results["clients"].values()} == {8.0}
    assert "What the uploads give away" in (tmp_path / "workspace" / "report" / "index.html").read_text()


@pytest.mark.slow
def test_mixed_clients_end_with_a_model_without_the_broken_and_the_poisoned_one(tmp_path: Path, pipeline_folder: Path):
    settings = {key: value for key, value in TINY.items() if key != "num-clients"}
    settings |= {"dataset": "mixed", "local-epochs": 10, "diffusion-model": str(pipeline_folder)}

    run = fedlmg_run(tmp_path, settings)

    results = json.loads((tmp_path / "workspace" / "report" / "results.json").read_text())
    assert run.returncode == 0, run.stdout
    quarantined = json.loads((tmp_path / "workspace" / "quarantine" / "mnist-2" / "reason.json").read_text())
    assert "must be finite" in quarantined["reason"]
    assert "mnist-2" in results["missing"]
    assert results["clients"]["optdigits-2"]["weight"] == 0
    assert results["clients"]["printed"]["weight"] > 0
    assert (tmp_path / "workspace" / "model" / "model.json").exists()


@pytest.mark.slow
def test_poisoned_clients_end_no_run_and_each_is_named_with_its_reason(tmp_path: Path, pipeline_folder: Path):
    settings = TINY | {"num-clients": 4, "diffusion-model": str(pipeline_folder), "architectures": "small_resnet"}
    settings |= {"faults": "1:nan-guidance, 2:crashing-architecture", "warm-start": False}

    run = fedlmg_run(tmp_path, settings)

    results = json.loads((tmp_path / "workspace" / "report" / "results.json").read_text())
    refused = {name: said["reason"] for name, said in results["outcomes"].items() if said["state"] == "refused"}
    assert run.returncode == 0, run.stdout
    assert (len(results["clients"]), len(refused)) == (2, 2)
    assert "must be finite, but some are not" in " ".join(refused.values())
    assert "its images cannot be drawn (RuntimeError: this net takes 8" in " ".join(refused.values())


@pytest.mark.slow
def test_a_failing_run_exits_1_with_its_reason(tmp_path: Path):
    (tmp_path / "no-pipeline").mkdir()

    run = fedlmg_run(tmp_path, TINY | {"diffusion-model": str(tmp_path / "no-pipeline")})

    assert run.returncode == 1
    assert "no-pipeline" in run.stdout.splitlines()[-1]


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process(tmp_path: Path):
    run = subprocess.Popen(command(tmp_path, TINY), cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "workspace" / "events.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    started = psutil.Process(run.pid).children(recursive=True)

    os.kill(run.pid, signal.SIGINT)
    run.wait(60)

    assert run.returncode == 1
    assert len(started) > 2
    assert [process for process in started if is_alive(process)] == []


def test_an_unknown_key_is_refused_before_anything_starts(tmp_path: Path):
    run = fedlmg_run(tmp_path, {"local-epoch": 1})

    assert run.returncode == 1
    assert "did you mean 'local-epochs'?" in run.stdout
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("text", ["local-epochs", "local-epochs = 3", "local-epochs=3 rest"])
def test_a_run_config_that_is_no_pairs_is_refused(text: str):
    from common.config import ConfigError
    from common.config.overrides import read_overrides

    with pytest.raises(ConfigError, match="is not of the form"):
        read_overrides(None, [text])


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_an_experiment_of_the_paper_runs_on_small_data_in_the_true_layout(tmp_path: Path):
    file = Path(__file__).resolve().parents[2] / "deploy" / "experiments" / "paper" / "nico-common.toml"

    run = subprocess.run(
        [str(FEDLMG), "bench", "paper", str(file), "--smoke", "--out", str(tmp_path)], capture_output=True, text=True
    )

    assert run.returncode == 0, run.stdout + run.stderr
    table = (tmp_path / "nico-common" / "smoke" / "table.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| fedlmg-specific-teacher |"))
    assert "| 58.16 |" in row
    assert all(
        f"| {name} |" in table for name in ("feddf", "fedavg-one-shot", "feddyn-20-rounds", "centralised-linear-probe")
    )


BLOOD_CELLS = os.environ.get("FEDLMG_BLOOD_CELLS", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not BLOOD_CELLS, reason="FEDLMG_BLOOD_CELLS names no folder as deploy/experiments/blood-cells.md has it"
)
@pytest.mark.parametrize("setting", ["different architectures", "each laboratory lacks a class"])
def test_laboratories_with_photographs_of_their_own_go_the_whole_road(
    tmp_path: Path, pipeline_folder: Path, setting: str
):
    file = Path(__file__).resolve().parents[2] / "deploy" / "experiments" / "blood-cells.toml"
    keys = experiment.read(file, Path(BLOOD_CELLS)).settings[setting]

    run = fedlmg_run(tmp_path, keys | TINY | {"num-clients": 4, "diffusion-model": str(pipeline_folder)})

    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads((tmp_path / "workspace" / "report" / "results.json").read_text())
    assert sorted(results["clients"]) == ["barcelona", "bccd", "cellavision", "tecom"]
    assert sorted(results["confusion"]["class_names"]) == ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
    assert all(client["personal_accuracy"] is not None for client in results["clients"].values())
