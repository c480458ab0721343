"""A general model that reads few images is trained for longer, as long as that helps."""

from pathlib import Path

import pytest
import torch

from common.config import Config
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.upload import weights_digest
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.events import Note, Progress
from fedlmg_server.general import models, training
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.general.models import make_general_models
from fedlmg_server.general.training import Job
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace

CPU, SHADES = torch.device("cpu"), tuple("abcdefgh")
"""Eight shades take a small ResNet more than 16 batches to tell apart, and fewer than 32."""


def images_of(num_shades: int) -> GeneralImages:
    def draw(seed: int) -> LabeledView:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(128) % num_shades
        shades = (30 + 200 * labels / num_shades)[:, None, None, None] + 20 * torch.rand(
            128, 1, 1, 1, generator=generator
        )
        pixels = shades + 10 * torch.randn(128, 3, 16, 16, generator=generator)
        return LabeledView.of(LabeledImages(pixels.clamp(0, 255).to(torch.uint8), labels))

    return GeneralImages(draw(0), draw(1), "public")


def make_job(architecture: str, num_shades: int, num_updates: int) -> Job:
    names = SHADES[:num_shades]
    return Job(architecture, names, PreprocessSpec(16), "none", 0, num_updates, frozenset(), CPU)


def test_a_model_that_reads_few_images_learns_for_as_long_again():
    planned = []

    made = make_job("small_resnet", 8, 16).run(images_of(8), lambda done, more: planned.append(more))

    assert (made.num_updates, sum(planned)) == (32, 16)
    assert made.accuracy > training.WELL_READ


def test_training_that_does_not_help_is_undone():
    images, job = images_of(4), make_job("small_mlp", 4, 8)
    once = job.run(images, may_go_on=False)

    made = job.run(images)

    assert made.num_updates == once.num_updates == 8
    assert weights_digest(made.weights) == weights_digest(once.weights)


def test_it_goes_on_only_once():
    planned = []

    made = make_job("small_resnet", 8, 8).run(images_of(8), lambda done, more: planned.append(more))

    assert sum(planned) == 8
    assert made.num_updates <= 16
    assert made.accuracy < training.WELL_READ


def test_the_operator_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDLMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "load_general_images", lambda run: images_of(8))
    settings = {"workspace": str(tmp_path / "run"), "general-updates": 16, "image-size": 16, "looks": "none"}
    config = Config.from_run_config(settings)
    workspace = Workspace.open(config, {})
    workspace.fix_class_names(list(SHADES))

    make_general_models(Run(config, workspace, CPU), ["small_resnet"])

    events = list(workspace.read_events())
    notes = [event.text for event in events if isinstance(event, Note)]
    progress = [(event.completed, event.total) for event in events if isinstance(event, Progress)]
    assert any("learned from 32 batches: now it reads" in text for text in notes)
    assert progress[0] == (0, 16)
    assert progress[-1] == (32, 32)
