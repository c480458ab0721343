"""One run: what follows from its config and its workspace, read when it is asked for."""

from pathlib import Path

import pytest
import torch

from common.config import Config, ConfigError
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload

CPU = torch.device("cpu")
SETTINGS = {"warm-start": False, "images-per-class": 3, "student-epochs": 2, "student-batch-size": 4, "image-size": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of two clients that share one of three classes and spell it unlike."""
    config = Config.from_run_config(SETTINGS | {"workspace": str(tmp_path_factory.mktemp("run"))})
    made = Run(config, Workspace.open(config, {}), CPU)
    for client, names in {"b": ["Dog", "fox"], "a": ["cat", "dog"]}.items():
        make_upload(client, names, "small_mlp").save(made.workspace.upload(client))
    return made


def test_uploads_are_those_in_the_workspace_in_the_spelling_that_all_share(run: Run):
    assert [(upload.client, upload.class_names) for upload in run.uploads] == [
        ("a", ["cat", "dog"]),
        ("b", ["dog", "fox"]),
    ]


def test_classes_are_the_union_and_every_client_knows_its_own(run: Run):
    assert run.class_names == ["cat", "dog", "fox"]
    assert {client: known.tolist() for client, known in run.known_classes.items()} == {
        "a": [True, True, False],
        "b": [False, True, True],
    }


def test_every_student_trains_for_its_epochs_over_the_planned_images(run: Run):
    assert (run.num_images, run.num_updates) == (3 * 4, 2 * 12 // 4)


def test_a_student_takes_one_update_at_least(run: Run):
    run = Run(Config.from_run_config(SETTINGS | {"student-batch-size": 1000}), run.workspace, CPU)

    assert run.num_updates == 1


def test_the_student_sees_images_of_the_run_s_size(run: Run):
    assert run.preprocess.image_size == 16


def test_a_run_without_a_model_describes_none(run: Run):
    assert run.model_description == {}


def test_a_run_is_reopened_with_the_config_that_made_it(run: Run):
    again = Run.reopen(run.workspace.root, CPU)

    assert again.config == run.config
    assert again.checksums == run.checksums


def test_a_folder_that_no_run_made_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="is no workspace of a run"):
        Run.reopen(tmp_path)


def test_a_workspace_without_uploads_has_none(tmp_path: Path):
    assert Run(Config(), Workspace(tmp_path), CPU).uploads == []


def test_folders_of_an_earlier_version_are_found_under_their_new_names(tmp_path: Path):
    config = Config.from_run_config(SETTINGS | {"workspace": str(tmp_path)})
    workspace = Workspace.open(config, {})
    make_upload("Site-A", ["cat", "dog"], "small_mlp").save(tmp_path / "uploads" / "Site-A")
    (tmp_path / "synthetic" / "Site-A" / "cat").mkdir(parents=True)

    run = Run.reopen(tmp_path, CPU)

    assert [upload.client for upload in run.uploads] == ["Site-A"]
    assert (workspace.upload("Site-A") / "manifest.json").exists()
    assert (workspace.synthetic("Site-A") / "cat").is_dir()


def test_student_of_imagenet_and_what_starts_from_its_general_model_see_images_as_it_learned_to(tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path), "student-initialisation": "imagenet"})

    run = Run(config, Workspace.open(config, {}), CPU)

    assert run.preprocess == PreprocessSpec(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
