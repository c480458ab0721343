"""A client that is offered general models: what it answers, where it starts, what it uploads."""

import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from opacus.accountants import utils as accountants

from common.answer import Answer, read_answer
from common.config import Config
from common.manifest import Membership
from common.models import architectures
from common.models.small import SmallResNet
from common.start import Start
from common.upload import Upload
from fedlmg_client import audit, dry_run, probe, training
from fedlmg_client.cli import console
from fedlmg_client.client_app import answer_question, train_and_upload
from fedlmg_client.uploading import make_upload
from fedlmg_server.flower.compat import act_as_task
from tests.client.tiny_start import CLASSES, make_start
from tests.common.pictures import draw_noise

RUN_CONFIG = {
    "dataset": "",
    "image-size": 16,
    "local-epochs": 2,
    "local-batch-size": 4,
    "architectures": "small_mlp",
    "student-architecture": "small_resnet",
    "warm-start": True,
}
CONFIG = Config.from_run_config(RUN_CONFIG)
BOTH = ("small_mlp", "small_resnet")


class CutOffError(Exception):
    """Stands for a power cut."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each of two classes in every part, one of them spelt in the client's own way."""
    folder = tmp_path_factory.mktemp("images")
    for number, split in enumerate(("train", "validation", "test")):
        for label, name in enumerate(("Dog", "cat")):
            for index in range(6):
                draw_noise(folder / split / name / f"{index}.png", 100 * number + 10 * label + index)
    return folder


@pytest.fixture
def node_config(images: Path, tmp_path: Path) -> dict[str, str]:
    """A client that has made nothing yet."""
    return {"name": "site-a", "data-path": str(images), "cache-path": str(tmp_path / "cache")}


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


@pytest.fixture
def flower() -> Iterator[None]:
    with act_as_task():
        yield


def ask(node_config: dict, **changes: object) -> RecordDict:
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG | changes)
    return answer_question(Message(RecordDict(), 7, MessageType.QUERY), context).content


def answer(node_config: dict, **changes: object) -> Answer:
    return read_answer(ask(node_config, **changes))


def send(node_config: dict, start: RecordDict, megabytes: float = 10.0) -> RecordDict:
    question = ConfigRecord({"have": "", "max-upload-megabytes": megabytes})
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG)
    return train_and_upload(Message(RecordDict({"config": question, **start}), 7, MessageType.TRAIN), context).content


def test_the_answer_says_what_will_be_trained(flower: None, node_config: dict[str, str]):
    said = answer(node_config)

    assert said == Answer(client="site-a", architecture="small_mlp", class_names=["Dog", "cat"], upload="both")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"warm-start": False}, ("small_mlp", "own", False)),
        ({"upload": "own"}, ("small_mlp", "own", True)),
        ({"upload": "student"}, ("small_resnet", "student", True)),
        ({"dp-epsilon": 8.0}, ("small_resnet", "student", True)),
        ({"dp-epsilon": 8.0, "upload": "own"}, ("small_mlp", "own", True)),
        (
            {"architecture": "small_resnet", "dp-epsilon": 8.0, "warm-start": False},
            ("small_resnet+groupnorm", "own", False),
        ),
    ],
)
def test_a_client_decides_for_itself(flower: None, node_config: dict[str, str], own: dict, said: tuple):
    found = answer(node_config | own)

    assert (found.architecture, found.upload, found.warm_start) == said


def test_a_copy_that_takes_too_long_is_not_promised(
    flower: None, node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 1e6)

    assert answer(node_config).upload == "own"
    assert "uploads its own classifier alone: a copy of 'small_resnet' takes" in capsys.readouterr().out


def test_what_the_copy_costs_is_said_and_the_same_at_the_next_question(
    flower: None, node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    answer(node_config)
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 1e6)

    assert answer(node_config).upload == "both"
    first, second = [line for line in capsys.readouterr().out.splitlines() if "copy" in line]
    assert first == second
    assert "adds 0.3 MB to the upload" in first


def test_an_unknown_architecture_is_told_at_the_question(flower: None, node_config: dict[str, str]):
    reply = ask(node_config | {"architecture": "small_resnett"})

    assert "the nearest is 'small_resnet'" in reply["error"]["reason"]


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


def _cut_off(*_: object) -> None:
    raise CutOffError


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


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_replayed": 9}])
def test_another_start_is_trained_from_anew(
    trained: dict[str, str], monkeypatch: pytest.MonkeyPatch, change: dict[str, int]
):
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    with pytest.raises(CutOffError):
        make_upload(trained, CONFIG, make_start(*BOTH, **change))


def test_replayed_images_teach_a_class_that_the_client_lacks(node_config: dict[str, str]):
    start = make_start("small_mlp", num_replayed=12)
    birds = replace(start, replay=replace(start.replay, labels=torch.zeros(12, dtype=torch.int64)))
    config = Config.from_run_config(RUN_CONFIG | {"local-epochs": 8, "upload": "own"})

    model = make_upload(node_config, config, birds).classifier()

    inputs = birds.preprocess(birds.replay.images.float() / 255)
    assert (model(inputs).argmax(1) == 0).float().mean() > 0.9


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


def test_a_rehearsal_says_that_a_copy_may_come(node_config: dict[str, str], capsys: pytest.CaptureFixture[str]):
    dry_run.show_upload(node_config, CONFIG, console)

    assert "also holds a copy of the student's architecture, 'small_resnet'" in " ".join(
        capsys.readouterr().out.split()
    )
