"""The question before the training: who is asked, whose answer counts, and who is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, MessageType, RecordDict

from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.events import Progress
from tests.common.pictures import draw_classes
from tests.server import tiny_grid
from tests.server.tiny_grid import (
    RAISED,
    TinyGrid,
    answers,
    fails,
    make_upload,
    notes,
    sends,
    sent,
    silent,
    start_for,
    stored,
    uploads,
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"architecture": "resnet_of_mine"}, "its architecture 'resnet_of_mine' is unknown to this server"),
        ({"architecture": "their.code:net"}, "its architecture is the builder 'their.code:net'"),
        ({"class_names": ["cat", "Cat"]}, "classes 'cat' and 'Cat' count as one class"),
    ],
)
def test_what_cannot_work_is_told_before_anybody_trains(make_warm, said: dict, reason: str):
    strategy = make_warm(**{"min-clients": 1})
    grid = TinyGrid({7: [answers("mnist", **said), uploads("mnist")], 8: [answers("printed"), uploads("printed")]})

    strategy.collection.run(grid)

    assert strategy.missing["mnist"].startswith(reason)
    assert sent(grid, 7)[0].content["config"]["refused"] == strategy.missing["mnist"]
    assert stored(strategy) == ["printed"]


def test_classes_that_the_diffusion_model_cannot_draw_are_told(make_warm, tmp_path: Path):
    draw_classes(tmp_path / "public-digits", ("0", "1"), count=6)
    strategy = make_warm(**{"diffusion-model": "digits", "public-images": str(tmp_path / "public-digits")})
    script = {7: [answers("zoo"), uploads("zoo")], 8: [answers("mnist", ["0", "1"]), uploads("mnist")]}

    strategy.collection.run(TinyGrid(script))

    assert "was not trained on 'cat'" in strategy.missing["zoo"]
    assert strategy.workspace.fixed_class_names == ["0", "1"]


def test_a_class_that_cannot_be_drawn_is_told_before_the_client_trains(make_warm, tmp_path: Path):
    draw_classes(tmp_path / "public-digits", ("0", "1"), count=6)
    strategy = make_warm(**{"diffusion-model": "digits", "public-images": str(tmp_path / "public-digits")})
    script = {7: [answers("zoo", ["0", "zero"]), uploads("zoo")], 8: [answers("mnist", ["0", "1"]), uploads("mnist")]}
    grid = TinyGrid(script)

    strategy.collection.run(grid)

    told = json.loads(str(sent(grid, 7)[0].content["config"]["left-out"]))
    assert list(told) == ["zero"]
    assert "left-out" not in sent(grid, 8)[0].content["config"]
    assert start_for(grid, 7) is not None
    assert strategy.workspace.fixed_class_names == ["0", "1"]
    assert strategy.workspace.class_notes.left_out["zoo"] == told
    assert any(note.startswith("client 'zoo': its class 'zero' is left out") for note in notes(strategy))


@pytest.mark.parametrize(
    ("said", "settings", "sentence"),
    [
        ([f"x{number}" for number in range(20_000)], {}, "it names 20000 classes, but 'max-classes' allows 1000"),
        (["cat", "fox", "owl"], {"max-images": 32}, "its 3 classes ask for 48 images, but 'max-images' allows 32"),
        (["cat", "fox", "owl"], {"max-classes": 3}, "all clients together have 4 classes, but 'max-classes' allows 3"),
    ],
    ids=["many classes", "many images", "many of all together"],
)
def test_a_hostile_answer_does_not_spoil_the_run_s_classes(make_warm, said: list, settings: dict, sentence: str):
    strategy = make_warm(**settings)
    grid = TinyGrid({7: [answers("foe", said), uploads("foe")], 8: [answers("mnist"), uploads("mnist")]})

    strategy.collection.run(grid)

    assert strategy.missing["foe"].startswith(sentence)
    assert str(sent(grid, 7)[0].content["config"]["refused"]).startswith(sentence)
    assert (strategy.workspace.fixed_class_names, stored(strategy)) == (["cat", "dog"], ["mnist"])


def test_a_client_that_starts_again_without_a_key_is_one_client(make_warm):
    strategy = make_warm(**{"deadline-seconds": 20.0})
    first, second = answers("a", ["cat", "cow"]), answers("a", ["cat", "dog"])
    grid = TinyGrid(
        {7: [first], 9: [second, uploads("a")], 8: [answers("b", ["cat", "fox"]), uploads("b")]},
        online=lambda polls: {7} if polls < 2 else {9} if polls < 6 else {8, 9},
    )

    strategy.collection.run(grid)

    assert strategy.workspace.fixed_class_names == ["cat", "dog", "fox"]


def test_two_clients_of_one_name_both_give_their_classes(make_warm):
    strategy = make_warm()
    script = {7: [answers("a", ["cat", "dog"]), uploads("a")], 8: [answers("a", ["cat", "fox"]), uploads("a")]}

    strategy.collection.run(TinyGrid(script))

    assert strategy.workspace.fixed_class_names == ["cat", "dog", "fox"]


def test_a_client_whose_upload_is_held_is_not_asked(make_warm):
    strategy = make_warm(**{"num-clients": 1})
    make_upload("mnist").save(strategy.workspace.upload("mnist"))
    strategy.workspace.remember_node(7, "mnist")
    grid = TinyGrid({7: []})

    strategy.collection.run(grid)

    assert grid.pushed == []
    assert strategy.clients == {7: "mnist"}


def test_who_does_not_answer_holds_up_nobody(make_warm):
    strategy = make_warm(**{"deadline-seconds": 1.0})

    strategy.collection.run(TinyGrid({7: [silent], 8: [answers("printed"), uploads("printed")]}))

    assert (stored(strategy), strategy.missing) == (["printed"], {"node 7": "no answer by the deadline"})


def test_who_answers_but_does_not_train_is_missing_by_name(make_warm):
    strategy = make_warm()

    strategy.collection.run(TinyGrid({7: [answers("mnist"), silent], 8: [answers("printed"), uploads("printed")]}))

    assert strategy.missing == {"mnist": "no answer by the deadline"}


@pytest.mark.parametrize(
    ("reply", "missing"),
    [
        (fails(RAISED, "Traceback\nValueError: no images"), {"node 7": "ValueError: no images"}),
        (sends(RecordDict({"error": ConfigRecord({"client": "a", "reason": "no disk"})})), {"a": "no disk"}),
    ],
)
def test_who_cannot_answer_is_missing_with_the_reason(make_warm, reply: tiny_grid.Answer, missing: dict[str, str]):
    strategy = make_warm()

    strategy.collection.run(TinyGrid({7: [reply], 8: [answers("printed"), uploads("printed")]}))

    assert strategy.missing == missing


def test_nonsense_for_an_answer_is_a_failure_of_its_node_alone(make_warm):
    strategy = make_warm()
    nonsense = RecordDict({"answer": ConfigRecord({"json": '{"client": 3}'})})

    strategy.collection.run(TinyGrid({7: [sends(nonsense)], 8: [answers("printed"), uploads("printed")]}))

    assert strategy.missing["node 7"].startswith("its answer ")


def test_a_client_answers_under_the_name_of_its_key_alone(make_warm, registry: str):
    strategy = make_warm(**{"client-registry": registry})
    script = {7: [answers("mnist"), uploads("mnist")], 8: [answers("mnist"), uploads("mnist")]}

    strategy.collection.run(TinyGrid(script))

    assert strategy.missing == {"printed": "the client calls itself 'mnist', but its key is registered as 'printed'"}


def test_a_forgotten_client_is_refused_and_not_missing(make_warm):
    strategy = make_warm()
    strategy.workspace.forgotten.add(["mnist"])
    grid = TinyGrid({7: [answers("mnist"), uploads("mnist")], 8: [answers("printed"), uploads("printed")]})

    strategy.collection.run(grid)

    assert (stored(strategy), strategy.missing) == (["printed"], {})
    assert all("refused" in message.content["config"] for message in sent(grid, 7))


def test_progress_and_seconds_of_the_question_are_told(make_warm):
    strategy = make_warm(**{"num-clients": 1})

    strategy.collection.run(TinyGrid({7: [answers("mnist"), uploads("mnist")]}))

    told = [e for e in strategy.workspace.read_events() if isinstance(e, Progress) and e.stage == "question"]
    assert [(event.completed, event.total, event.unit) for event in told] == [(1, 1, "clients")]
    assert set(strategy.workspace.stage_seconds()) == {"question", "general models", "uploads"}


def test_without_a_warm_start_nobody_is_asked_or_sent_more_than_the_task(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})
    grid = TinyGrid({7: [uploads("mnist")]})

    strategy.collection.run(grid)

    (message,) = grid.pushed
    assert message.metadata.message_type == MessageType.TRAIN
    assert {name: set(record) for name, record in message.content.items()} == {
        "config": {"have", "max-upload-megabytes"}
    }
