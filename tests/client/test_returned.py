"""A client's answer to EVALUATE: accuracies and nothing else; its models stay in its cache."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from common.clients.data import load_client_data
from common.evaluation import Evaluation
from common.labels.maps import find_indices
from common.models.predictor import load_classifier
from common.start import Start
from common.upload import Upload
from common.vision.metrics import accuracy
from fedlmg_client import folders, models, page, personal_training, personalise, returned
from fedlmg_client.client_app import take_and_evaluate
from fedlmg_client.measured import Measured
from fedlmg_client.uploading import make_upload
from fedlmg_server.flower.compat import act_as_task
from tests.client.tiny_client import CONFIG, RUN_CONFIG
from tests.client.tiny_start import CLASSES, make_start
from tests.common.pictures import draw_noise

START = make_start("small_resnet")


class CutOffError(BaseException):
    """Stands for a power cut."""


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A client that has uploaded: 6 training, 60 validation, 10 test images."""
    folder = tmp_path_factory.mktemp("uploaded")
    for split, count in {"train": 3, "validation": 30, "test": 5}.items():
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                draw_noise(folder / "images" / split / name / f"{index}.png", 1000 * count + 100 * label + index)
    node_config = {"name": "site-a", "data-path": str(folder / "images"), "cache-path": str(folder / "cache")}
    make_upload(node_config, CONFIG, make_start("small_mlp", "small_resnet"))
    return node_config


@pytest.fixture(scope="module")
def evaluated(uploaded: dict[str, str]) -> tuple[dict[str, str], RecordDict]:
    """The same client when it has answered, and its answer; tests read both."""
    node_config = with_own_cache(uploaded, Path(f"{uploaded['cache-path']}-evaluated"))
    with act_as_task():
        return node_config, reply(node_config)


@pytest.fixture
def node_config(uploaded: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A client that has uploaded, in a process that Flower has stamped."""
    with act_as_task():
        yield with_own_cache(uploaded, tmp_path / "cache")


@pytest.fixture
def again(evaluated: tuple[dict[str, str], RecordDict], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A client that has answered once, in a process that Flower has stamped."""
    with act_as_task():
        yield with_own_cache(evaluated[0], tmp_path / "cache")


def with_own_cache(node_config: dict[str, str], cache: Path) -> dict[str, str]:
    shutil.copytree(node_config["cache-path"], cache)
    return node_config | {"cache-path": str(cache)}


def reply(node_config: dict, start: Start | None = START, seed: int = 1) -> RecordDict:
    described = {"architecture": "small_resnet", "class_names": CLASSES, "preprocessing": START.preprocess.to_json()}
    content = RecordDict(
        {
            "arrays": ArrayRecord(make_start("small_resnet", seed=seed).models["small_resnet"]),
            "config": ConfigRecord({"model": json.dumps(described)}),
            **(start.to_records() if start else {}),
        }
    )
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG)
    return take_and_evaluate(Message(content, 7, MessageType.EVALUATE), context).content


def evaluate(node_config: dict, start: Start | None = START, seed: int = 1) -> Evaluation:
    return Evaluation.from_records(reply(node_config, start, seed))


def cache_of(node_config: dict) -> Path:
    return Path(node_config["cache-path"])


def _cut_off(*_: object) -> None:
    raise CutOffError


def test_nothing_but_accuracies_leaves(evaluated: tuple[dict[str, str], RecordDict]):
    _, records = evaluated

    assert list(records) == ["evaluation"]
    said = json.loads(records["evaluation"]["json"])
    assert said.pop("num_examples") == 10
    balanced = said.pop("balanced")
    assert set(said) == set(balanced) == {"returned", "own", "general", "no_federation", "personal"}
    assert all(0 <= value <= 1 for value in [*said.values(), *balanced.values()])


@pytest.mark.parametrize(
    ("key", "folder"),
    [("returned", "aggregated"), ("general", "general"), ("personal", "personal"), ("no_federation", "no-federation")],
)
def test_each_accuracy_is_that_of_the_model_in_its_folder(
    evaluated: tuple[dict[str, str], RecordDict], key: str, folder: str
):
    node_config, said = evaluated[0], Evaluation.from_records(evaluated[1])

    model, data = load_classifier(cache_of(node_config) / folder), load_client_data(node_config, CONFIG)
    right = find_indices(data.class_names, model.class_names, {})[data.test.labels]
    assert getattr(said, key) == pytest.approx(accuracy(model(data.test.images.read()), right))
    written = json.loads((cache_of(node_config) / folder / "evaluation.json").read_text())
    assert said.balanced[key] == written["balanced_accuracy"]


def test_own_is_what_was_uploaded(evaluated: tuple[dict[str, str], RecordDict]):
    node_config, said = evaluated[0], Evaluation.from_records(evaluated[1])

    (folder,) = cache_of(node_config).glob("*/upload")
    assert said.own == Upload.load(folder).manifest.training.test_accuracy_wire


def test_a_client_may_tell_nothing_and_still_has_its_models(node_config: dict[str, str]):
    said = evaluate(node_config | {"share-evaluation": False})

    assert said == Evaluation(num_examples=0)
    assert (cache_of(node_config) / "personal" / "model.json").is_file()


def test_what_the_privacy_budget_does_not_cover_is_not_told(node_config: dict[str, str]):
    said = evaluate(node_config | {"dp-epsilon": 8.0})

    assert (said.personal, said.no_federation) == (None, None)
    assert None not in (said.returned, said.own, said.general)
    assert said.balanced.keys() == {"returned", "own", "general"}


def test_without_a_start_there_is_a_personal_model_and_no_general_one(again: dict[str, str]):
    said = evaluate(again, start=None)

    assert (said.general, said.no_federation) == (None, None)
    assert said.personal is not None
    assert {path.parent.name for path in cache_of(again).glob("*/model.json")} == {"aggregated", "personal"}


def test_without_an_upload_the_rest_is_measured(node_config: dict[str, str], tmp_path: Path):
    said = evaluate(node_config | {"cache-path": str(tmp_path / "other")})

    assert said.own is None
    assert said.personal is not None


def test_an_upload_that_can_no_longer_be_built_is_left_out(node_config: dict[str, str]):
    (file,) = cache_of(node_config).glob("*/upload/manifest.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architecture": "code_that_is_gone:net"}))

    said = evaluate(node_config)

    assert said.own is None
    assert said.personal is not None


@pytest.mark.parametrize("step", ["load_client_data", "evaluate"])
@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), MemoryError()])
def test_a_model_that_comes_while_the_memory_is_full_is_kept(
    node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
):
    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(returned, step, fails)
        answer = reply(node_config)

    assert "error" in answer
    assert returned.compare_again(cache_of(node_config), {"data-path": node_config["data-path"]}).general is not None


def test_a_model_that_comes_while_the_images_are_away_is_kept(node_config: dict[str, str], tmp_path: Path):
    answer = reply(node_config | {"data-path": str(tmp_path / "away")})

    assert "error" in answer
    assert returned.compare_again(cache_of(node_config), {"data-path": node_config["data-path"]}).general is not None


def test_without_its_images_a_client_uses_no_personal_model_of_a_former_round(again: dict[str, str], tmp_path: Path):
    reply(again | {"data-path": str(tmp_path / "away")}, seed=2)

    assert folders.find_model(cache_of(again)) == cache_of(again) / "aggregated"


def test_the_same_model_that_comes_again_without_the_images_takes_nothing_away(again: dict[str, str], tmp_path: Path):
    before = Measured.read(cache_of(again) / "aggregated")

    reply(again | {"data-path": str(tmp_path / "away")})

    assert folders.find_model(cache_of(again)) == cache_of(again) / "personal"
    assert Measured.read(cache_of(again) / "aggregated") == before


@pytest.mark.parametrize(("seed", "is_used"), [(0, True), (3, False)], ids=["same", "other"])
def test_without_its_images_a_client_compares_with_no_other_general_model(
    again: dict[str, str], tmp_path: Path, seed: int, is_used: bool
):
    reply(again | {"data-path": str(tmp_path / "away")}, make_start("small_resnet", seed=seed), seed=2)

    assert (cache_of(again) / "no-federation" / "model.json").exists() == is_used


def test_the_page_says_why_a_model_was_not_measured(again: dict[str, str], tmp_path: Path):
    reply(again | {"data-path": str(tmp_path / "away")}, seed=2)

    shown = page.render(cache_of(again))

    assert f"The returned model was not measured: there is no folder {tmp_path / 'away'}" in shown
    assert "test images of this client" not in shown


def test_a_model_that_was_not_measured_is_measured_when_the_images_are_back(again: dict[str, str], tmp_path: Path):
    reply(again | {"data-path": str(tmp_path / "away")}, seed=2)

    returned.compare_again(cache_of(again), {"data-path": again["data-path"]})

    found = Measured.read(cache_of(again) / "aggregated")
    assert (found.num_images, found.unmeasured) == (10, "")


def test_a_model_that_cannot_be_built_replaces_none(again: dict[str, str], tmp_path: Path):
    sent = make_start("small_mlp").models["small_mlp"]
    described = {"architecture": "small_resnet", "class_names": CLASSES, "preprocessing": START.preprocess.to_json()}
    before = (cache_of(again) / "aggregated" / "model.safetensors").read_bytes()

    with pytest.raises(ValueError, match="the weights do not fit"):
        returned.take(again | {"data-path": str(tmp_path / "away")}, CONFIG, sent, described, START)

    assert (cache_of(again) / "aggregated" / "model.safetensors").read_bytes() == before


def test_an_upload_that_does_not_fit_the_memory_is_left_out(
    node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    def fails(_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(models.Model, "of_upload", fails)

    said = evaluate(node_config)

    assert said.own is None
    assert said.personal is not None


def test_a_personal_model_whose_description_is_damaged_is_made_anew(again: dict[str, str]):
    (cache_of(again) / "personal" / "model.json").write_text("[]")

    assert evaluate(again).personal is not None


def test_without_test_images_nothing_is_measured(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    data = load_client_data(node_config, CONFIG)
    nothing = data.test.choose(torch.arange(0))
    monkeypatch.setattr(returned, "load_client_data", lambda *_: replace(data, test=nothing))

    assert evaluate(node_config) == Evaluation(num_examples=0)


def test_a_finished_personal_model_is_not_made_again(
    again: dict[str, str], evaluated: tuple[dict[str, str], RecordDict], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(personalise, "fine_tune", _cut_off)

    assert evaluate(again) == Evaluation.from_records(evaluated[1])


def test_another_returned_model_is_made_personal_anew(again: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(personalise, "fine_tune", _cut_off)

    with pytest.raises(CutOffError):
        evaluate(again, seed=2)
    assert not (cache_of(again) / "personal" / "model.json").exists()


def test_an_interrupted_one_is_continued(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(returned, "_report", _cut_off)
        with pytest.raises(CutOffError):
            evaluate(node_config)
    told = []
    monkeypatch.setattr(returned, "_report", lambda client, name, cache, epoch, *_: told.append((name, epoch)))

    evaluate(node_config)

    assert told == [("your personal model", 2), *(("a model without the federation", epoch) for epoch in (1, 2))]
    assert list(cache_of(node_config).glob("*/*.checkpoint.safetensors")) == []


def test_what_cannot_be_made_is_told_and_the_others_are_measured(
    node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(personalise, "fine_tune", fails)

    said = evaluate(node_config)

    assert "your personal model cannot be made: out of memory" in capsys.readouterr().out
    assert (said.personal, said.no_federation) == (None, None)
    assert said.returned is not None


def test_a_model_that_cannot_be_built_is_told_to_the_server(node_config: dict[str, str]):
    content = RecordDict({"arrays": ArrayRecord({}), "config": ConfigRecord({"model": "{}"})})
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG)

    answer = take_and_evaluate(Message(content, 7, MessageType.EVALUATE), context).content

    assert answer["error"]["reason"] == "the description of a model is incomplete"


@pytest.mark.parametrize("name", ["small_mlp", "small_resnet"])
def test_a_general_model_that_cannot_be_used_is_left_out(node_config: dict[str, str], name: str):
    broken = replace(START, models={name: make_start("small_mlp").models["small_mlp"]})

    said = evaluate(node_config, broken)

    assert (said.general, said.no_federation) == (None, None)
    assert said.personal is not None


def test_of_two_general_models_that_of_the_returned_architecture_is_kept(node_config: dict[str, str]):
    evaluate(node_config, make_start("small_mlp", "small_resnet"))

    assert list(models.load_general(cache_of(node_config) / "general").models) == ["small_resnet"]


def test_more_replay_than_the_client_keeps_is_cut_and_told(
    node_config: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    evaluate(node_config | {"max-replay-megabytes": 0.003})

    kept = models.load_general(cache_of(node_config) / "general").replay
    assert "site-a: keeps 3 of 8 replay images" in capsys.readouterr().out
    assert torch.equal(kept.images, START.replay.images[[0, 2, 5]])
    assert torch.equal(kept.labels, START.replay.labels[[0, 2, 5]])


def test_the_start_is_kept_as_it_came(evaluated: tuple[dict[str, str], RecordDict]):
    kept = models.load_general(cache_of(evaluated[0]) / "general")

    assert kept.digest("small_resnet") == START.digest("small_resnet")
    assert (kept.class_names, kept.looks, kept.preprocess) == (START.class_names, START.looks, START.preprocess)
    assert torch.equal(kept.replay.images, START.replay.images)


def test_general_images_are_replayed_for_both_models(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    made, make = [], personal_training.make_replay
    monkeypatch.setattr(personalise, "make_replay", lambda *given: made.append(make(*given)) or made[-1])

    evaluate(node_config)

    assert [len(replay.images) for replay in made] == [8, 8]
    assert not torch.equal(made[0].targets, made[1].targets)
