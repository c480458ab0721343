"""Several processes train one student; a net without BatchNorm learns as in one process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from common.config import Config
from common.config.general import GeneralConfig
from common.config.run import DistillationConfig, LocalTrainingConfig
from common.models import architectures
from fedlmg_server import trainer
from fedlmg_server.distillation import student, team
from fedlmg_server.distillation.job import Job
from fedlmg_server.distillation.team import train_as_team
from fedlmg_server.run import Run
from fedlmg_server.trainer import Checkpoint, TrainingSet
from fedlmg_server.workspace import Workspace

CPU, GREYS = torch.device("cpu"), 8
CONFIG = Config(
    general=GeneralConfig(looks="none"),
    training=LocalTrainingConfig(image_size=16),
    distillation=DistillationConfig(student_architecture="small_mlp", student_batch_size=15),
)


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes of a team: more threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def greys() -> TrainingSet:
    """Images of one grey each, which look the same however they are shifted, turned and zoomed."""
    labels = torch.arange(60) % GREYS
    images = (30 * labels + 10).to(torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).clone()
    teacher = torch.eye(GREYS)[labels] * 0.8 + 0.2 / GREYS
    return TrainingSet(images, labels, teacher * (torch.arange(60) % 3 > 0)[:, None])


def make_job(config: Config = CONFIG, num_updates: int = 12) -> Job:
    torch.manual_seed(0)
    architecture = config.distillation.student_architecture
    model = architectures.build(architecture, GREYS, 16, config.builders)
    return Job(config, GREYS, num_updates, save(model.state_dict()))


def test_a_team_learns_what_one_process_learns():
    told: list[dict] = []
    job = make_job(num_updates=4)
    alone, history = job.train(greys())

    together, told_history = train_as_team(job, greys(), CPU, 2, told.append, None)

    # Batches of 15 images are shared as 8 and 7, and every image weighs as much as every other.
    assert all(torch.allclose(alone[name], together[name], atol=1e-5) for name in alone)
    assert [entry["loss"] for entry in told_history] == pytest.approx([entry["loss"] for entry in history], abs=1e-4)
    assert told == told_history


@pytest.mark.slow
def test_a_team_goes_on_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = Checkpoint(tmp_path / "student.safetensors", "key")
    done: list[dict] = []
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def stop_in_third_epoch(entry: dict) -> None:
        if entry["epoch"] == 3:
            raise KeyboardInterrupt
        done.append(entry)

    with pytest.raises(KeyboardInterrupt):
        make_job().train(greys(), stop_in_third_epoch, checkpoint)
    told: list[dict] = []

    _, history = train_as_team(make_job(), greys(), CPU, 2, told.append, checkpoint)

    assert [entry["epoch"] for entry in told] == [3]
    assert history == [*done, *told]
    assert not checkpoint.path.exists()


def test_a_run_takes_the_student_of_its_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(CONFIG, distillation=DistillationConfig(student_batch_size=15))
    run = Run(replace(config, general=GeneralConfig(warm_start=False)), Workspace(tmp_path), CPU)
    run.uploads, run.class_names = [], [str(number) for number in range(GREYS)]
    monkeypatch.setattr(Run, "num_updates", 16)
    monkeypatch.setattr(student, "num_processes", lambda config, device, num_images: 2)

    model, history = student.train_student(run, greys())

    assert history[-1]["loss"] < history[0]["loss"]
    assert not torch.equal(model.head.weight, student.make_student(run).head.weight)
    assert not model.training


def test_no_two_processes_vary_their_images_alike():
    common = torch.Generator().manual_seed(0)
    first, second = (trainer._generator_of(rank, common.clone_state()) for rank in (0, 1))

    assert not torch.equal(torch.rand(8, generator=first), torch.rand(8, generator=second))


@pytest.mark.slow
def test_an_error_of_the_disk_stays_what_it_is(tmp_path: Path):
    directory = Checkpoint(tmp_path, "key")

    with pytest.raises(OSError, match="No such device"):
        train_as_team(make_job(), greys(), CPU, 2, lambda entry: None, directory)


def test_a_process_that_fails_ends_the_others():
    damaged = replace(make_job(), start=b"no safetensors file")

    with pytest.raises(RuntimeError, match=r"one of the 2 processes that train the student ended: .*Safetensor"):
        train_as_team(damaged, greys(), CPU, 2, lambda entry: None, None)


@pytest.mark.parametrize(
    ("device", "image_size", "batch_size", "num_images", "expected"),
    [
        ("cuda", 224, 64, 100, 4),
        ("cuda", 224, 16, 100, 2),
        ("cuda", 224, 4, 100, 1),
        ("cuda", 224, 64, 20, 2),
        ("cuda", 32, 64, 100, 1),
        ("cpu", 224, 64, 100, 1),
    ],
)
def test_a_process_for_each_accelerator_where_shares_are_large(
    monkeypatch: pytest.MonkeyPatch, device: str, image_size: int, batch_size: int, num_images: int, expected: int
):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    config = replace(
        CONFIG,
        training=LocalTrainingConfig(image_size=image_size),
        distillation=DistillationConfig(student_batch_size=batch_size),
    )

    assert team.num_processes(config, torch.device(device), num_images) == expected
