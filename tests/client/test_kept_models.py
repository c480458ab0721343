"""The models that a client keeps when it is sent one: also where an answer fails, is repeated or is cut off."""

from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict

from common.evaluation import Evaluation
from fedlmg_client import folders, models, page, personal_training, personalise, returned
from fedlmg_client.measured import Measured
from tests.client import tiny_evaluation
from tests.client.tiny_client import CONFIG
from tests.client.tiny_evaluation import RETURNED, START, CutOffError, cache_of, cut_off, evaluate, reply
from tests.client.tiny_start import make_start

uploaded, evaluated = tiny_evaluation.uploaded, tiny_evaluation.evaluated
node_config, again = tiny_evaluation.node_config, tiny_evaluation.again


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
    before = (cache_of(again) / "aggregated" / "model.safetensors").read_bytes()

    with pytest.raises(ValueError, match="the weights do not fit"):
        returned.take(again | {"data-path": str(tmp_path / "away")}, CONFIG, sent, RETURNED, START)

    assert (cache_of(again) / "aggregated" / "model.safetensors").read_bytes() == before


def test_a_personal_model_whose_description_is_damaged_is_made_anew(again: dict[str, str]):
    (cache_of(again) / "personal" / "model.json").write_text("[]")

    assert evaluate(again).personal is not None


def test_a_finished_personal_model_is_not_made_again(
    again: dict[str, str], evaluated: tuple[dict[str, str], RecordDict], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(personalise, "fine_tune", cut_off)

    assert evaluate(again) == Evaluation.from_records(evaluated[1])


def test_another_returned_model_is_made_personal_anew(again: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(personalise, "fine_tune", cut_off)

    with pytest.raises(CutOffError):
        evaluate(again, seed=2)
    assert not (cache_of(again) / "personal" / "model.json").exists()


def test_an_interrupted_one_is_continued(node_config: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(returned, "_report", cut_off)
        with pytest.raises(CutOffError):
            evaluate(node_config)
    told = []
    monkeypatch.setattr(returned, "_report", lambda client, name, cache, epoch, *_: told.append((name, epoch)))

    evaluate(node_config)

    assert told == [("your personal model", 2), *(("a model without the federation", epoch) for epoch in (1, 2))]
    assert list(cache_of(node_config).glob("*/*.checkpoint.safetensors")) == []


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
