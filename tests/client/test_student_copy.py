"""A client that got a start uploads its own classifier and a copy of the student's architecture."""

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from common.config import Config
from common.manifest import Membership
from common.models import architectures
from common.models.small import SmallResNet
from common.upload import Upload
from fedlmg_client import audit, training
from fedlmg_client.uploading import make_upload
from tests.client import tiny_client
from tests.client.tiny_client import BOTH, CONFIG, RUN_CONFIG, CutOffError, _cut_off, send
from tests.client.tiny_start import CLASSES, make_start

images, node_config, flower = tiny_client.images, tiny_client.node_config, tiny_client.flower


@pytest.fixture(scope="module")
def first(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Upload, str]:
    """The client's cache when it has trained, its upload, and what it said meanwhile; tests read them."""
    cache, said = tmp_path_factory.mktemp("cache"), io.StringIO()
    own = {"name": "site-a", "data-path": str(images), "cache-path": str(cache)}
    with redirect_stdout(said):
        return cache, make_upload(own, CONFIG, make_start(*BOTH)), said.getvalue()


@pytest.fixture
def trained(node_config: dict[str, str], first: tuple[Path, Upload, str]) -> dict[str, str]:
    """The client when it has trained."""
    shutil.copytree(first[0], node_config["cache-path"])
    return node_config


def test_an_upload_knows_all_classes_of_the_run_and_holds_its_own(first: tuple[Path, Upload, str]):
    start, upload = make_start(*BOTH), first[1]

    assert (upload.class_names, upload.manifest.class_counts) == (CLASSES, [0, 6, 6])
    assert upload.manifest.start == start.digest("small_mlp")
    assert upload.manifest.student_copy.start == start.digest("small_resnet")


@pytest.mark.parametrize("statistics", ["global", "class", "class/4"])
def test_statistics_have_a_row_for_a_class_without_images(node_config: dict[str, str], statistics: str):
    upload = make_upload(
        node_config, Config.from_run_config(RUN_CONFIG | {"statistics": statistics}), make_start(*BOTH)
    )

    shapes = {tuple(moments.mean.shape[:-1]) for moments in upload.statistics.values()}
    assert shapes == {{"global": (), "class": (3,), "class/4": (4, 3)}[statistics]}
    assert all(moments.mean.isfinite().all() for moments in upload.statistics.values())


def test_the_copy_has_the_students_architecture_and_travels_in_the_upload(flower: None, node_config: dict[str, str]):
    upload = Upload.from_records(send(node_config, make_start(*BOTH).to_records()))

    model = architectures.build("small_resnet", 3, 16)
    model.load_state_dict(upload.student_copy)
    assert upload.manifest.architecture == "small_mlp"
    assert upload.manifest.student_copy.architecture == "small_resnet"
    assert {tensor.dtype for tensor in upload.student_copy.values()} == {torch.float16, torch.int64}


@pytest.mark.parametrize(
    ("own", "architecture"),
    [
        ({"upload": "own"}, "small_mlp"),
        ({"upload": "student"}, "small_resnet"),
        ({"architecture": "small_resnet"}, "small_resnet"),
    ],
)
def test_one_classifier_is_enough(node_config: dict[str, str], own: dict[str, str], architecture: str):
    upload = make_upload(node_config | own, CONFIG, make_start(*BOTH))

    assert (upload.manifest.architecture, upload.manifest.student_copy) == (architecture, None)


@pytest.mark.parametrize("num_replayed", [0, 8])
def test_training_and_copy_cut_off_end_with_the_same_weights(
    node_config: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_replayed: int
):
    start = make_start(*BOTH, num_replayed=num_replayed)
    whole = make_upload(node_config | {"cache-path": str(tmp_path / "whole")}, CONFIG, start)
    for name in ("", "a copy of small_resnet"):
        with monkeypatch.context() as patch:
            patch.setattr(training, "_print_progress", lambda *found, name=name: found[-1] == name and _cut_off())
            with pytest.raises(CutOffError):
                make_upload(node_config, CONFIG, start)

    resumed = make_upload(node_config, CONFIG, start)

    assert resumed.manifest.sha256 == whole.manifest.sha256
    assert resumed.manifest.student_copy.sha256 == whole.manifest.student_copy.sha256


def test_what_was_trained_from_the_same_start_is_not_trained_again(
    trained: dict[str, str], first: tuple[Path, Upload, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    assert make_upload(trained, CONFIG, make_start(*BOTH)).manifest == first[1].manifest


@pytest.mark.parametrize("file", ["model.safetensors", "copy.json"])
def test_a_finished_copy_that_is_damaged_is_named_and_what_to_do(trained: dict[str, str], file: str):
    (damaged,) = Path(trained["cache-path"]).glob(f"*/copy/{file}")
    damaged.write_text("{}")

    with pytest.raises(ValueError, match=f"{damaged.parent} is damaged .*: remove that folder"):
        make_upload(trained, CONFIG, make_start(*BOTH))


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_replayed": 9}])
def test_another_start_is_trained_from_anew(
    trained: dict[str, str], monkeypatch: pytest.MonkeyPatch, change: dict[str, int]
):
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    with pytest.raises(CutOffError):
        make_upload(trained, CONFIG, make_start(*BOTH, **change))


def test_the_progress_says_which_of_the_two_is_trained(first: tuple[Path, Upload, str]):
    said = first[2]

    assert "site-a: epoch 2/2" in said
    assert "site-a: a copy of small_resnet, epoch 2/2" in said


def test_the_copy_counts_for_the_servers_cap(flower: None, node_config: dict[str, str]):
    reply = send(node_config, make_start(*BOTH).to_records(), megabytes=0.6)

    assert reply["error"]["reason"].endswith("set 'upload' to 'own'")


def test_a_copy_that_gives_too_much_away_is_not_sent(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    told = Membership(auc=0.9, tpr_at_1_percent_fpr=0.5)
    little = told.model_copy(update={"auc": 0.5})
    monkeypatch.setattr(
        audit, "measure_membership", lambda model, *_: told if isinstance(model, SmallResNet) else little
    )

    with pytest.raises(ValueError, match=r"is 0\.90, above the 'max-membership-auc'"):
        make_upload(node_config | {"max-membership-auc": 0.8}, CONFIG, make_start(*BOTH))
