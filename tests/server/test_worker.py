"""Synthesis processes: started for the whole machine, continued after a kill."""

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from common.config import Config, ConfigError
from fedlmg_server.cli import app
from fedlmg_server.diffusion import location
from fedlmg_server.events import Estimated
from fedlmg_server.run import Run
from fedlmg_server.synthesis import estimate, incidents, launch, scores, store, worker
from fedlmg_server.synthesis.following import Following
from fedlmg_server.synthesis.plan import PlannedImage, split_into_batches
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.workspace import METHODS, Workspace
from tests.manifests import saying

CPU = torch.device("cpu")


@pytest.fixture
def workspace(tmp_path, upload, pipeline_folder: Path) -> Workspace:
    shutil.copytree(pipeline_folder, tmp_path / "pipeline")
    config = Config.from_run_config(
        {
            "workspace": str(tmp_path / "workspace"),
            "warm-start": False,
            "diffusion-model": str(tmp_path / "pipeline"),
            "images-per-class": 4,
            "synthesis-batch-size": 2,
            "num-inference-steps": 2,
        }
    )
    workspace = Workspace.open(config, versions={})
    upload.save(workspace.upload(upload.client))
    return workspace


def generated(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.root.glob("synthetic/*/*/[!.]*.png")}


def wait(workers: launch.Workers, method: str = "fedlmg") -> None:
    following = Following(Run.reopen(workers.workspace.root, CPU), method)
    workers.wait(following.is_complete, following.count, lambda count: None)


def generate_all(workspace: Workspace) -> None:
    with launch.start_workers(workspace, 2) as workers:
        wait(workers)


@pytest.mark.slow
def test_all_processes_generate_the_whole_plan(workspace):
    with launch.start_workers(workspace, 2, METHODS) as workers:
        for method in METHODS:
            wait(workers, method)

    assert [store.count_images(workspace, method) for method in METHODS] == [8, 8]


@pytest.mark.slow
def test_killed_worker_leaves_the_same_images_in_the_end(workspace):
    generate_all(workspace)
    undisturbed = generated(workspace)
    for path in workspace.root.glob("synthetic/*/*/*"):
        path.unlink()
    worker = subprocess.Popen([sys.executable, "-m", launch.MODULE, str(workspace.root)])
    while not generated(workspace):
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()

    generate_all(workspace)

    assert generated(workspace) == undisturbed


@pytest.mark.slow
def test_failing_process_is_told_with_its_log(workspace, tmp_path):
    (tmp_path / "pipeline" / "unet" / "config.json").unlink()

    with pytest.raises(RuntimeError, match="a synthesis process ended with 1"):
        generate_all(workspace)


def test_batches_are_dealt_evenly_over_all_clients(workspace, upload, monkeypatch):
    for name in "bcd":
        saying(upload, client=name).save(workspace.upload(name))
    dealt: list[int] = []

    def count(backend, run, upload, method, share) -> None:
        planned, (rank, world_size) = store.planned_images(run, upload), share
        dealt[-1] += len(split_into_batches(planned, run.config.synthesis.synthesis_batch_size)[rank::world_size])

    monkeypatch.setattr(worker, "generate_for_client", count)
    monkeypatch.setattr(worker.opening, "load_backend", lambda *_: None)
    monkeypatch.setattr(worker, "LONGEST_PROBE_SECONDS", 0.0)
    monkeypatch.setattr(worker.estimate, "time_probe", lambda *asked: estimate.Estimate(asked[3], 0.0, 0.0, asked[4]))

    for rank in range(8):
        dealt.append(0)
        worker.work(Run.reopen(workspace.root, CPU), ["fedlmg"], rank, 8)

    assert dealt == [2] * 8


def test_no_more_processes_are_started_than_there_are_batches(upload):
    run = Run(Config.from_run_config({"images-per-class": 2, "synthesis-batch-size": 4}), Workspace(Path("nowhere")))
    run.uploads = [upload]

    assert launch.num_processes(run) == 1


def test_folder_that_is_no_pipeline_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no diffusers pipeline: it has no model_index\.json"):
        location.find_pipeline(str(tmp_path))


def test_estimate_counts_the_plan_and_times_this_machine(workspace):
    cost = estimate.estimate_cost(Run.reopen(workspace.root, CPU))

    assert cost.num_images == 8
    assert cost.megabytes == pytest.approx(8 * 3 * 32 * 32 / 1e6)
    assert cost.seconds > 0
    assert not generated(workspace)


def test_the_first_process_tells_beforehand_what_synthesis_will_cost(workspace):
    worker.work(Run.reopen(workspace.root, CPU), ["fedlmg"], 0, 1)
    worker.work(Run.reopen(workspace.root, CPU), ["fedlmg"], 0, 1)

    told = [event.sentence for event in workspace.read_events() if isinstance(event, Estimated)]
    assert len(told) == 1
    assert re.fullmatch(r"8 guided images: about \d+ s on 1 process, at most 0 MB", told[0])


def test_no_other_process_draws_before_the_cost_is_told(workspace):
    before = []

    def tell() -> None:
        before.append(generated(workspace))
        workspace.log(Estimated(sentence="8 guided images: about 1 s"))

    first = threading.Timer(2.0, tell)
    first.start()

    worker.work(Run.reopen(workspace.root, CPU), ["fedlmg"], 1, 2)

    first.join()
    assert (before, len(generated(workspace))) == ([{}], 4)


def test_plan_of_a_folder_without_uploads_is_a_sentence(tmp_path):
    result = CliRunner().invoke(app, ["plan", str(tmp_path)])

    assert result.exit_code == 1
    assert "is no workspace of a run" in result.output


def test_plan_with_an_unusable_diffusion_model_is_a_sentence(workspace, tmp_path):
    (tmp_path / "pipeline" / "model_index.json").write_text('{"_class_name": "KolorsPipeline"}')

    result = CliRunner().invoke(app, ["plan", str(workspace.root)])

    assert result.exit_code == 1
    assert "its class is KolorsPipeline, and must be one of" in result.output


def test_plan_without_a_valid_upload_is_a_sentence(workspace, upload):
    shutil.rmtree(workspace.upload(upload.client))

    result = CliRunner().invoke(app, ["plan", str(workspace.root)])

    assert result.exit_code == 1
    assert "holds no valid upload" in result.output


def test_images_are_counted_by_new_score_lines_and_only_once_they_are_written(workspace, upload):
    run = Run.reopen(workspace.root, CPU)
    first, *others = store.planned_images(run, upload)
    folder = run.image_folder(upload)
    following, counts = Following(run, "fedlmg"), []

    def score(images: list[PlannedImage]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        scores.append_scores(folder / "scores-0.jsonl", [Score(i.file, i.class_name, 1.0, True) for i in images])
        counts.append(following.count())

    def write(images: list[PlannedImage]) -> None:
        for image in images:
            image.path(folder).parent.mkdir(exist_ok=True)
            image.path(folder).write_bytes(b"")
        counts.append(following.count())

    score([first])
    write([first])
    score(others)
    before = following.is_complete()
    write(others)

    assert counts == [0, 1, 1, 8]
    assert (before, following.is_complete()) == (False, True)
    assert Following(run, "fedlmg").count() == 8


def test_folders_are_listed_once_a_minute(workspace, monkeypatch: pytest.MonkeyPatch):
    listed, files = [], scores.files
    monkeypatch.setattr(scores, "files", lambda folder: listed.append(folder) or files(folder))
    following = Following(Run.reopen(workspace.root, CPU), "fedlmg")

    for _ in range(3):
        following.count()

    assert len(listed) == len(set(listed)) > 0


def test_nobody_waits_for_images_of_a_client_that_has_failed(workspace):
    following = Following(Run.reopen(workspace.root, CPU), "fedlmg")

    incidents.note_failure(workspace, "site-a", "its images cannot be drawn")

    assert following.is_complete()
