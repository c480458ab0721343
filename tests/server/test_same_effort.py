"""As many unguided images as fit into the seconds of guided synthesis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from common.config import Config
from common.datasets.labeled_images import LabeledView
from fedlmg_server import readers
from fedlmg_server.baselines import methods, same_effort
from fedlmg_server.baselines.outcome import DoesNotApply
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import mixture
from fedlmg_server.events import StageFinished
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.general.training import Job
from fedlmg_server.run import Run
from fedlmg_server.synthesis import launch, scores, store
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.trainer import TrainingSet
from fedlmg_server.workspace import Workspace
from tests.server.tiny_federation import shown, virtual_run

SHADES = {"dark": 50, "bright": 200}


@pytest.fixture
def compared(uploads, tmp_path: Path) -> VirtualRun:
    """Its guided images took 8 s, as many unguided ones 2 s; 8 images a class and client."""
    run = virtual_run(uploads, tmp_path, images_per_class=8)
    for upload in uploads:
        upload.save(run.workspace.upload(upload.client))
    for stage, seconds in (("synthesis", 8.0), ("prompts-only", 2.0)):
        run.workspace.log(StageFinished(name=stage, seconds=seconds, images=32))
    return run


@contextmanager
def draw_plain_shades(workspace: Workspace, world_size: int, asked: list[str]) -> Iterator[SimpleNamespace]:
    """In place of the processes: every planned image has its class's shade."""
    run = Run(Workspace.existing(workspace.root)[1], workspace, torch.device("cpu"))
    for upload in run.load_uploads():
        folder = run.image_folder(upload, *asked)
        planned = store.planned_images(run, upload)
        for image in planned:
            image.path(folder).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (SHADES[image.class_name],) * 3).save(image.path(folder))
        known = [Score(image.file, image.class_name, 1.0, True) for image in planned]
        scores.append_scores(folder / "scores-0.jsonl", known)
    yield SimpleNamespace(wait=lambda *_: None)


def test_four_times_as_fast_makes_four_times_as_many(compared: VirtualRun):
    assert same_effort.images_per_class(compared) == 4 * 8


def test_a_run_without_unguided_images_is_sent_for_them(uploads, tmp_path: Path):
    with pytest.raises(DoesNotApply, match="fedlmg run --compare"):
        same_effort.images_per_class(virtual_run(uploads, tmp_path))


def test_the_student_learns_from_all_of_them(compared: VirtualRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "start_workers", draw_plain_shades)

    outcome = methods.measure_method("prompts-only-same-seconds", compared)

    assert outcome.per_client == {"a": 1.0, "b": 1.0}
    assert outcome.cost.num_images == 2 * 2 * 32
    assert (outcome.cost.epochs, outcome.cost.upload_bytes) == (0, 0)


def test_after_a_warm_start_the_student_also_sees_general_images(compared: VirtualRun, monkeypatch: pytest.MonkeyPatch):
    seen = []
    warm = {"warm-start": True, "student-initialisation": "average"}
    compared.config = Config.from_run_config(compared.config.to_run_config() | warm)
    general = LabeledView.of(shown())
    data = GeneralImages(general, general, "public")
    monkeypatch.setattr(mixture, "load_general_images", lambda run: data)
    monkeypatch.setattr(launch, "start_workers", draw_plain_shades)
    train = same_effort.train_student
    monkeypatch.setattr(same_effort, "train_student", lambda run, data: seen.append(data) or train(run, data))

    outcome = methods.measure_method("prompts-only-same-seconds", compared)

    assert len(seen[0].images) == 2 * 2 * 32 + 64
    assert outcome.cost.num_images == 2 * 2 * 32 + 64


def test_finished_images_are_not_drawn_again(compared: VirtualRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "start_workers", draw_plain_shades)
    first = methods.measure_method("prompts-only-same-seconds", compared)
    monkeypatch.setattr(launch, "start_workers", lambda *_: pytest.fail("drawn again"))

    again = methods.measure_method("prompts-only-same-seconds", compared)

    assert again.per_client == first.per_client
    assert again.cost.num_images == first.cost.num_images


def test_another_workspace_shares_uploads_and_general_models(compared: VirtualRun, tmp_path: Path):
    (tmp_path / "general").mkdir()
    config = Config.from_run_config(compared.config.to_run_config() | {"workspace": str(tmp_path / "other")})

    for _ in range(2):
        other = compared.sharing_uploads(config)

    assert [upload.client for upload in other.load_uploads()] == ["a", "b"]
    assert (other.workspace.root / "general").resolve() == tmp_path / "general"


@pytest.mark.parametrize(
    ("method", "seconds_of_update", "updates"),
    [("general-same-seconds", 0.5, 26), ("general-same-seconds", 1.0, 18), ("general-same-updates", 1.0, 16)],
)
def test_the_general_model_is_trained_for_as_long_as_the_server_takes(
    method: str, seconds_of_update: float, updates: int, compared: VirtualRun, monkeypatch: pytest.MonkeyPatch
):
    trained = []
    keys = {"warm-start": True, "general-updates": 10, "student-epochs": 3}
    compared.config = Config.from_run_config(compared.config.to_run_config() | keys)
    general = LabeledView.of(shown())
    data = GeneralImages(general, general, "public")
    monkeypatch.setattr(same_effort, "load_general_images", lambda run: data)
    monkeypatch.setattr(same_effort, "seconds_of_update", lambda *_: seconds_of_update)
    run_job = Job.run
    monkeypatch.setattr(
        Job, "run", lambda job, *given, **asked: trained.append(job.num_updates) or run_job(job, *given, **asked)
    )

    outcome = methods.measure_method(method, compared)

    # Synthesis took 8 s; a student takes 6 updates.
    assert trained == [updates]
    assert set(outcome.per_client) == {"a", "b"}
    assert (outcome.cost.rounds, outcome.cost.num_images) == (0, 64)


@pytest.mark.parametrize(("most", "reads_views"), [(16, True), (1, False)])
def test_all_clients_teach_on_general_images_alone(
    most: int, reads_views: bool, compared: VirtualRun, monkeypatch: pytest.MonkeyPatch
):
    taught: list[TrainingSet] = []
    warm = {"warm-start": True, "student-initialisation": "average"}
    compared.config = Config.from_run_config(compared.config.to_run_config() | warm)
    general = LabeledView.of(shown())
    monkeypatch.setattr(mixture, "load_general_images", lambda run: GeneralImages(general, general, "public"))
    monkeypatch.setattr(readers, "MOST_READERS", most)
    train = same_effort.train_student
    monkeypatch.setattr(same_effort, "train_student", lambda run, data: taught.append(data) or train(run, data))

    outcome = methods.measure_method("general-multi-teacher", compared)

    data = taught[0]
    assert len(data.images) == outcome.cost.num_images == 64
    votes = None if data.readers is None else data.readers.votes.tolist()
    assert votes == ([[1.0] * 64] * 2 if reads_views else None)
    assert (data.teacher is None) == reads_views
    assert set(outcome.per_client) == {"a", "b"}
    assert outcome.cost.upload_bytes == sum(upload.num_bytes for upload in compared.uploads)


@pytest.mark.parametrize("method", ["general-same-seconds", "general-same-updates", "general-multi-teacher"])
def test_the_general_model_needs_general_images(method: str, compared: VirtualRun):
    with pytest.raises(DoesNotApply, match="set 'warm-start'"):
        methods.measure_method(method, compared)
