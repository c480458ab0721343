"""The question before the training: who is asked, who is refused, and what each client gets to start from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from common.answer import Answer
from common.config import ConfigError
from common.start import Start
from common.storage.caches import cache_root
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.events import Note, Progress
from fedlmg_server.general import training
from tests.common.pictures import draw_classes
from tests.server import tiny_grid
from tests.server.any_model import draws_anything
from tests.server.tiny_grid import (
    RAISED,
    TinyGrid,
    answers,
    evaluates,
    fails,
    make_upload,
    sends,
    silent,
    stored,
    uploads,
)

STUDENT = "small_resnet"


@pytest.fixture
def make_warm(
    make_strategy: Callable[..., FedLMG], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., FedLMG]:
    """A strategy with a warm start from a few public images, whose general models need not be good."""
    monkeypatch.setattr(training, "NEAR_CHANCE", 0.0)
    # No processes: they would take longer to start than to train.
    monkeypatch.setattr(training, "num_processors", lambda: 1)
    monkeypatch.setenv("FEDLMG_CACHE", str(tmp_path / "cache"))
    draw_classes(tmp_path / "public", count=6)

    def make(**changes: object) -> FedLMG:
        settings = {"warm-start": True, "public-images": str(tmp_path / "public"), "general-updates": 2}
        settings["diffusion-model"] = draws_anything(tmp_path / "diffusion")
        return make_strategy(**{**settings, **changes})

    return make


def sent(grid: TinyGrid, node: int, message_type: str = MessageType.TRAIN) -> list[Message]:
    found = [message for message in grid.pushed if message.metadata.dst_node_id == node]
    return [message for message in found if message.metadata.message_type == message_type]


def start_for(grid: TinyGrid, node: int) -> Start | None:
    (message,) = sent(grid, node)
    return Start.from_records(message.content)


def notes(strategy: FedLMG) -> list[str]:
    return [event.text for event in strategy.workspace.read_events() if isinstance(event, Note)]


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


def test_the_model_returns_with_the_general_one_and_replay(make_warm):
    strategy = make_warm(**{"num-clients": 1})
    grid = TinyGrid({7: [answers("mnist"), uploads("mnist"), evaluates(0.5)]})

    strategy.start(grid)

    (message,) = sent(grid, 7, MessageType.EVALUATE)
    start = Start.from_records(message.content)
    assert start is not None
    assert (list(start.models), len(start.replay)) == ([STUDENT], 8)


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
