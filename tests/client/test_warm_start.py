"""A client that is offered general models starts its training from those that fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from opacus.accountants import utils as accountants

from common.config import Config
from common.start import Start
from common.upload import Upload
from fedlmg_client import training
from fedlmg_client.uploading import make_upload
from tests.client import tiny_client
from tests.client.tiny_client import BOTH, CONFIG, RUN_CONFIG, _cut_off, send
from tests.client.tiny_start import make_start

images, node_config, flower = tiny_client.images, tiny_client.node_config, tiny_client.flower


def test_training_begins_at_the_general_model(node_config: dict[str, str]):
    start = make_start("small_mlp", num_replayed=0)
    config = replace(CONFIG.training, local_epochs=1)

    first = make_upload(node_config | {"upload": "own"}, replace(CONFIG, training=config), start)

    general = start.models["small_mlp"]
    change = max((first.arrays[key].float() - general[key].float()).abs().max() for key in general)
    assert 0 < change < 0.01


def without_start(node_config: dict[str, str], cache: str) -> Upload:
    return make_upload(node_config | {"cache-path": cache}, Config.from_run_config(RUN_CONFIG | {"warm-start": False}))


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (None, "the server sent none"),
        (make_start(*BOTH, class_names=["cat", "fox"]), "the start lacks the class 'Dog'"),
        (make_start(*BOTH, size=32), "the start is for images prepared otherwise"),
        (make_start("small_vit"), "none of its models fits"),
    ],
)
def test_a_start_that_does_not_fit_is_told_and_the_client_trains_from_scratch(
    node_config: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], start: Start | None, reason: str
):
    upload = make_upload(node_config, CONFIG, start)

    said = [line for line in capsys.readouterr().out.splitlines() if "trains from its own initial weights" in line]
    assert len(said) == 1
    assert reason in said[0]
    assert upload.manifest.sha256 == without_start(node_config, str(tmp_path / "other")).manifest.sha256


def test_weights_of_another_shape_are_told_and_the_copy_still_starts(
    node_config: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    start = make_start(*BOTH)
    start.models["small_mlp"] = start.models["small_resnet"]

    upload = make_upload(node_config, CONFIG, start)

    assert "'small_mlp' gets no warm start: the general model does not fit" in capsys.readouterr().out
    assert (upload.manifest.start, upload.class_names) == ("", ["Dog", "cat"])
    assert upload.manifest.student_copy


def test_a_start_that_cannot_be_read_is_told(
    flower: None, node_config: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    records = RecordDict({"start": ConfigRecord({"json": "{}"})})

    upload = Upload.from_records(send(node_config, records))

    assert "the server's start cannot be read" in capsys.readouterr().out
    assert upload.manifest.start == ""


def test_a_client_that_refuses_a_start_trains_as_without(node_config: dict[str, str], tmp_path: Path):
    upload = make_upload(node_config | {"warm-start": False}, CONFIG, make_start(*BOTH))

    assert upload.manifest.sha256 == without_start(node_config, str(tmp_path / "other")).manifest.sha256


def test_private_training_starts_from_the_general_model_and_replays_nothing(
    node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training.Replay, "of_start", _cut_off)
    monkeypatch.setattr(accountants, "get_noise_multiplier", lambda **_: 1.0)
    start = make_start(*BOTH)

    upload = make_upload(node_config | {"dp-epsilon": 50.0}, CONFIG, start)

    assert (upload.manifest.architecture, upload.manifest.student_copy) == ("small_resnet", None)
    assert upload.manifest.start == start.digest("small_resnet")
    assert upload.manifest.privacy.epsilon == 50.0


def test_private_training_keeps_the_moments_of_its_start(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accountants, "get_noise_multiplier", lambda **_: 1.0)
    start = make_start(*BOTH)

    upload = make_upload(node_config | {"dp-epsilon": 50.0}, CONFIG, start)

    sent, given = upload.arrays, start.models["small_resnet"]
    moments = [name for name in given if "running_" in name]
    assert moments
    assert all(sent[name].equal(given[name]) for name in moments)
    assert not all(sent[name].equal(given[name]) for name in given)


def test_private_training_that_is_sent_no_start_does_without_batch_norm(
    node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accountants, "get_noise_multiplier", lambda **_: 1.0)

    upload = make_upload(node_config | {"architecture": "small_resnet", "dp-epsilon": 50.0}, CONFIG, None)

    assert upload.manifest.architecture == "small_resnet+groupnorm"


def test_replayed_images_teach_a_class_that_the_client_lacks(node_config: dict[str, str]):
    start = make_start("small_mlp", num_replayed=12)
    birds = replace(start, replay=replace(start.replay, labels=torch.zeros(12, dtype=torch.int64)))
    config = Config.from_run_config(RUN_CONFIG | {"local-epochs": 8, "upload": "own"})

    model = make_upload(node_config, config, birds).classifier()

    inputs = birds.preprocess(birds.replay.images.float() / 255)
    assert (model(inputs).argmax(1) == 0).float().mean() > 0.9
