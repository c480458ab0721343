"""Training of general models: side by side in processes, and what it tells."""

from dataclasses import replace

import pytest
import torch

from common.datasets.labeled_images import LabeledImages, LabeledView
from common.upload import weights_digest
from fedlmg_server.events import Note, Progress
from fedlmg_server.general import models, training
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.general.models import make_general_models
from tests.server import tiny_general
from tests.server.tiny_general import cached

images, make_run = tiny_general.images, tiny_general.make_run


NAMES = ["small_mlp", "small_resnet"]


@pytest.mark.slow
def test_models_are_trained_side_by_side_as_one_by_one(make_run):
    alone = {name: make_general_models(make_run(name), [name])[name] for name in NAMES}
    for path in cached():
        path.unlink()

    together = make_general_models(make_run("both"), NAMES)

    assert {name: weights_digest(model.weights) for name, model in together.items()} == {
        name: weights_digest(model.weights) for name, model in alone.items()
    }


@pytest.mark.parametrize(("jobs", "accelerators", "expected"), [(3, 2, 2), (1, 2, 1), (3, 1, 1)])
def test_each_accelerator_trains_one_model_at_a_time(
    make_run, monkeypatch: pytest.MonkeyPatch, jobs: int, accelerators: int, expected: int
):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: accelerators)
    job = replace(models.make_job(make_run(), "small_mlp", 8), device=torch.device("cuda"))

    assert training.num_workers([job] * jobs) == expected


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator rounds otherwise than the processor")
def test_a_process_trains_on_the_device_of_its_rank(make_run, images, monkeypatch: pytest.MonkeyPatch):
    """The jobs' device computes nothing; the processes take the machine's, here its processor."""
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    jobs = [models.make_job(make_run(name), name, 8) for name in NAMES]
    alone = {job.architecture: job.run(images) for job in jobs}

    elsewhere = [replace(job, device=torch.device("meta")) for job in jobs]
    together = {job.architecture: made for job, made in training.run_all(elsewhere, images, lambda done, more: None)}

    assert {name: weights_digest(model.weights) for name, model in together.items()} == {
        name: weights_digest(model.weights) for name, model in alone.items()
    }


@pytest.mark.slow
def test_a_model_whose_process_dies_takes_no_other_with_it(make_run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "num_processors", lambda: 2)
    dying = "tests.server.bad_builders:dying_in_training"
    run = make_run(architectures=f"small_mlp,{dying}")

    made = make_general_models(run, ["small_mlp", dying])

    assert list(made) == ["small_mlp"]
    (note,) = (e.text for e in run.workspace.read_events() if isinstance(e, Note) and dying in e.text)
    assert note.endswith("the process that trained it ended, perhaps for want of memory")


def test_progress_tells_the_updates_of_all_models(make_run):
    run = make_run()

    make_general_models(run, ["small_mlp"])

    told = [event for event in run.workspace.read_events() if isinstance(event, Progress)]
    assert [(event.completed, event.total, event.unit) for event in told][-1] == (8, 8, "updates")


def test_updates_are_told_as_they_are_done_where_there_are_fewer_than_an_epoch_has(make_run, images: GeneralImages):
    told: list[int] = []
    job = models.make_job(make_run(), "small_mlp", 20)
    many = LabeledView.of(LabeledImages(images.train.images.read().repeat(80, 1, 1, 1), images.train.labels.repeat(80)))
    assert len(many) > 20 * training.BATCHES.student_batch_size

    job.run(replace(images, train=many), lambda done, more: told.append(done))

    assert sum(told) == 20


def test_a_general_model_of_micrographs_learns_from_mixed_images(make_run, images, monkeypatch: pytest.MonkeyPatch):
    job = models.make_job(make_run(looks="microscopy"), "small_mlp", 8)
    mixed = job.run(images)
    assert weights_digest(job.run(images).weights) == weights_digest(mixed.weights)

    monkeypatch.setattr(training.looks, "make_mixing", lambda looks, num_classes: None)

    assert weights_digest(job.run(images).weights) != weights_digest(mixed.weights)


@pytest.mark.parametrize("num_held_out", [1, 2, 50])
def test_a_perfect_model_of_one_class_is_offered_and_not_called_chance(num_held_out: int):
    assert training.GeneralModel("small_mlp", ["cat"], {}, 1.0, num_held_out).is_offered
