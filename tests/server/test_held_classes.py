"""A client that knows all the run's classes but holds images of some: only these are generated for it."""

from pathlib import Path

import pytest
import torch

from common.config import Config
from common.models.feature_statistics import gather_by_class
from fedlmg_server.run import Run
from fedlmg_server.synthesis import estimate, launch, store
from fedlmg_server.synthesis.generate import generate_for_client
from fedlmg_server.synthesis.scores import read_scores
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying

CPU = torch.device("cpu")
CLASSES = ["ant", "cat", "dog", "eel"]
SETTINGS = {"images-per-class": 3, "synthesis-batch-size": 4, "num-inference-steps": 2, "noise-editing-steps": 1}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of one client that holds cats and eels of four classes."""
    config = Config.from_run_config(SETTINGS | {"workspace": str(tmp_path)})
    run = Run(config, Workspace.open(config, {}), CPU)
    run.workspace.fix_class_names(CLASSES)
    saying(make_upload("a", CLASSES), class_counts=[0, 9, 0, 2]).save(run.workspace.upload("a"))
    return run


def test_images_are_planned_and_counted_for_held_classes_alone(run: Run):
    (upload,) = run.uploads

    planned = store.planned_images(run, upload)

    assert {image.class_name for image in planned} == {"cat", "eel"}
    assert (run.num_images, estimate.count_planned_images(run), len(planned)) == (6, 6, 6)
    assert launch.num_processes(run) <= 2


def test_images_are_guided_to_and_scored_by_the_classifier_s_own_numbering(run: Run, backend):
    (upload,) = run.uploads

    assert generate_for_client(backend, run, upload) == 6

    assert store.is_complete(run, "fedlmg")
    assert {score.class_name for score in read_scores(run.image_folder(upload)).values()} == {"cat", "eel"}


def test_the_run_s_classes_are_the_fixed_ones_and_those_of_latecomers(run: Run):
    make_upload("b", ["CAT", "fox"], "small_mlp").save(run.workspace.upload("b"))

    assert run.class_names == ["ant", "cat", "dog", "eel", "fox"]
    assert run.uploads[1].class_names == ["cat", "fox"]


def test_statistics_of_classes_without_images_are_finite():
    upload = make_upload("a", CLASSES)
    labels = torch.tensor([1] * 12 + [3] * 9)

    gathered = gather_by_class(upload.classifier(), [(torch.rand(21, 3, 32, 32), labels)], len(CLASSES))

    assert all(m.mean.isfinite().all() and m.variance.isfinite().all() for m in gathered.values())
