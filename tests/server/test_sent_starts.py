"""What each client gets to start from."""

import json
import shutil
from pathlib import Path

import pytest
from flwr.app import MessageType

from common.answer import Answer
from common.config import ConfigError
from common.start import Start
from common.storage.caches import cache_root
from fedlmg_server.general import training
from tests.server.tiny_grid import TinyGrid, answers, evaluates, notes, sent, start_for, stored, uploads

STUDENT = "small_resnet"


@pytest.mark.parametrize(("upload", "expected"), [("own", {"small_mlp"}), ("both", {STUDENT}), ("student", {STUDENT})])
def test_each_client_gets_the_models_that_it_will_train(make_warm, upload: str, expected: set[str]):
    strategy = make_warm(**{"num-clients": 1})
    grid = TinyGrid({7: [answers("mnist", upload=upload), uploads("mnist")]})

    strategy.collection.run(grid)

    start = start_for(grid, 7)
    assert start is not None
    assert (set(start.models), stored(strategy)) == (expected, ["mnist"])


def test_the_run_s_classes_are_those_of_all_clients(make_warm):
    strategy = make_warm()
    script = {7: [answers("a", ["Dog", "fox"]), uploads("a")], 8: [answers("b", ["cat", "dog"]), uploads("b")]}
    grid = TinyGrid(script)

    strategy.collection.run(grid)

    starts = [start_for(grid, 7), start_for(grid, 8)]
    assert [start.class_names for start in starts if start] == [["Dog", "cat", "fox"]] * 2
    assert strategy.workspace.fixed_class_names == ["Dog", "cat", "fox"]


def test_a_client_that_refuses_a_start_gets_none(make_warm):
    grid = TinyGrid({7: [answers("mnist", warm_start=False), uploads("mnist")]})

    make_warm(**{"num-clients": 1}).collection.run(grid)

    assert start_for(grid, 7) is None


def test_models_near_chance_are_not_sent(make_warm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "NEAR_CHANCE", 1.1)
    grid, strategy = TinyGrid({7: [answers("mnist"), uploads("mnist")]}), make_warm(**{"num-clients": 1})

    strategy.collection.run(grid)

    assert start_for(grid, 7) is None
    assert any("near chance" in note for note in notes(strategy))


def test_a_latecomer_is_asked_and_gets_a_start(make_warm):
    strategy = make_warm(**{"deadline-seconds": 4.0})
    script = {7: [answers("mnist"), uploads("mnist")], 8: [answers("late", ["DOG"]), uploads("late")]}
    grid = TinyGrid(script, online=lambda polls: {7, 8} if stored(strategy) else {7})

    strategy.collection.run(grid)

    start = start_for(grid, 8)
    assert start is not None
    assert (start.class_names, stored(strategy)) == (["cat", "dog"], ["late", "mnist"])


def test_a_class_that_a_latecomer_alone_has_is_left_out_and_it_gets_a_start(make_warm):
    strategy = make_warm(**{"deadline-seconds": 4.0})
    script = {7: [answers("mnist"), uploads("mnist")], 8: [answers("late", ["cat", "fox"]), uploads("late")]}
    grid = TinyGrid(script, online=lambda polls: {7, 8} if stored(strategy) else {7})

    strategy.collection.run(grid)

    assert start_for(grid, 8) is not None
    assert list(json.loads(str(sent(grid, 8)[-1].content["config"]["left-out"]))) == ["fox"]
    assert "client 'late': its class 'fox' is left out: 'fox' came after the classes" in notes(strategy)[-1]


def test_where_nothing_is_merged_a_latecomer_of_other_classes_trains_from_scratch(make_warm):
    strategy = make_warm(**{"deadline-seconds": 4.0, "aggregation": "specific-teacher"})
    script = {7: [answers("mnist"), uploads("mnist")], 8: [answers("late", ["cat", "fox"]), uploads("late")]}
    grid = TinyGrid(script, online=lambda polls: {7, 8} if stored(strategy) else {7})

    strategy.collection.run(grid)

    assert (start_for(grid, 8), stored(strategy)) == (None, ["late", "mnist"])
    assert notes(strategy)[-1].startswith("'late' came late and holds the class 'fox', which no other client has")


def test_a_server_killed_before_the_training_goes_on_with_the_same_start(make_warm, tmp_path: Path):
    killed = make_warm(**{"num-clients": 1})
    killed.workspace.fix_class_names(["cat", "dog"])
    assert killed.collection.question is not None
    killed.collection.question.answers[7] = Answer(client="a", architecture="small_mlp", class_names=["cat", "dog"])
    killed.collection.question.prepare()
    first = killed.collection.question.start_of(7)
    shutil.rmtree(cache_root())
    shutil.rmtree(tmp_path / "public")
    grid = TinyGrid({7: [answers("a"), uploads("a")]})

    make_warm(**{"num-clients": 1}).collection.run(grid)

    again = start_for(grid, 7)
    assert first is not None
    assert again is not None
    assert again.digest("small_mlp") == first.digest("small_mlp")


def test_without_a_general_model_of_the_student_nobody_trains(make_warm, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise RuntimeError("its forward pass fails")

    monkeypatch.setattr(training.Job, "run", fails)
    strategy, grid = make_warm(**{"num-clients": 1}), TinyGrid({7: [answers("mnist"), uploads("mnist")]})

    with pytest.raises(ConfigError, match="no general model of 'small_resnet' could be made"):
        strategy.collection.run(grid)

    assert sent(grid, 7) == []


def test_the_model_returns_with_the_general_one_and_replay(make_warm):
    strategy = make_warm(**{"num-clients": 1})
    grid = TinyGrid({7: [answers("mnist"), uploads("mnist"), evaluates(0.5)]})

    strategy.start(grid)

    (message,) = sent(grid, 7, MessageType.EVALUATE)
    start = Start.from_records(message.content)
    assert start is not None
    assert (list(start.models), len(start.replay)) == ([STUDENT], 8)
