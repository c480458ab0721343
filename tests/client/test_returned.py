"""A client's answer to EVALUATE: accuracies and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from common.clients.data import load_client_data
from common.evaluation import Evaluation
from common.labels.maps import find_indices
from common.models.predictor import load_classifier
from common.upload import Upload
from common.vision.metrics import accuracy
from fedlmg_client import models, personalise, returned
from fedlmg_client.client_app import take_and_evaluate
from tests.client import tiny_evaluation
from tests.client.tiny_client import CONFIG, RUN_CONFIG
from tests.client.tiny_evaluation import START, cache_of, evaluate
from tests.client.tiny_start import make_start

uploaded, evaluated = tiny_evaluation.uploaded, tiny_evaluation.evaluated
node_config, again = tiny_evaluation.node_config, tiny_evaluation.again


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


def test_an_upload_that_does_not_fit_the_memory_is_left_out(
    node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    def fails(_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(models.Model, "of_upload", fails)

    said = evaluate(node_config)

    assert said.own is None
    assert said.personal is not None


def test_without_test_images_nothing_is_measured(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    data = load_client_data(node_config, CONFIG)
    nothing = data.test.choose(torch.arange(0))
    monkeypatch.setattr(returned, "load_client_data", lambda *_: replace(data, test=nothing))

    assert evaluate(node_config) == Evaluation(num_examples=0)


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
