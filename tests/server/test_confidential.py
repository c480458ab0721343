"""No message tells a client of another one: neither its name nor its checksum, over whole runs with a real pipeline."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.common.serde import recorddict_to_proto

from common.config import Config
from common.upload import Upload
from fedlmg_client import client_app
from fedlmg_server import pipeline
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.general import training
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.common.pictures import draw_classes
from tests.conftest import make_upload
from tests.server.tiny_federation import forget_client
from tests.server.tiny_grid import Answer, TinyGrid, answers, evaluates, sends

pytestmark = pytest.mark.usefixtures("drawn_in_this_process", "task")

CLIENTS = {7: "klinik-nord", 8: "klinik-west", 9: "praxis-huber"}
SETTINGS = {
    **{
        "witness": "off",
        "dataset": "",
        "num-clients": 3,
        "min-clients": 1,
        "deadline-seconds": 20.0,
        "images-per-class": 1,
    },
    **{"num-inference-steps": 2, "noise-editing-steps": 1, "student-epochs": 1, "general-updates": 1},
}


@pytest.fixture
def settings(tmp_path: Path, pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(training, "NEAR_CHANCE", 0.0)
    monkeypatch.setattr(training, "num_processors", lambda: 1)
    draw_classes(tmp_path / "public", count=6)
    own = {"workspace": str(tmp_path / "run"), "public-images": str(tmp_path / "public")}
    return SETTINGS | own | {"diffusion-model": str(pipeline_folder)}


def upload_of(client: str) -> Upload:
    return make_upload(client, ["cat", "dog"], seed=sorted(CLIENTS.values()).index(client))


def uploads(client: str) -> Answer:
    return sends(upload_of(client).to_records())


def uploads_no_weights(client: str) -> Answer:
    return sends(RecordDict({"manifest": upload_of(client).to_records()["manifest"]}))


def play(settings: dict, script: dict[int, list[Answer]]) -> list[Message]:
    """A run over a grid; returns every message that it sent."""
    config = Config.from_run_config(settings)
    run = Run(config, Workspace.open(config, {}))
    strategy = FedLMG(config, run.workspace, partial(pipeline.aggregate, run), poll_seconds=0.01, grace_seconds=0.02)
    grid = TinyGrid(script)
    strategy.start(grid)
    return grid.pushed


def play_first(settings: dict) -> list[Message]:
    asked = settings["warm-start"]
    return play(
        settings, {node: [*[answers(name)] * asked, uploads(name), evaluates(0.5)] for node, name in CLIENTS.items()}
    )


def play_again(settings: dict) -> list[Message]:
    """The same clients come from other nodes, and train nothing anew."""
    return play(settings, {n + 10: [answers(c), uploads_no_weights(c), evaluates(0.5)] for n, c in CLIENTS.items()})


def told(messages: list[Message]) -> list[tuple[str, str]]:
    """(who is told, of whom) wherever a message holds the name or the checksum of another client."""
    found = []
    for message in messages:
        content = recorddict_to_proto(message.content).SerializeToString()
        receiver = CLIENTS[message.metadata.dst_node_id % 10]
        for name in set(CLIENTS.values()) - {receiver}:
            if any(word.encode() in content for word in (name, upload_of(name).manifest.checksum)):
                found.append((receiver, name))
    return found


def kinds(messages: list[Message]) -> Counter[str]:
    return Counter(message.metadata.message_type for message in messages)


@pytest.mark.parametrize("warm", [False, True])
def test_no_message_of_a_run_or_of_its_repetition_tells_of_another_client(settings: dict, warm: bool):
    settings |= {"warm-start": warm}

    messages = [*play_first(settings), *play_again(settings)]

    assert told(messages) == []
    asked = {MessageType.QUERY: 6 if warm else 3, MessageType.TRAIN: 6, MessageType.EVALUATE: 6}
    assert kinds(messages) == asked


def test_a_removed_client_is_told_so_and_nothing_of_it_is_taken_from_any_node(settings: dict):
    settings |= {"warm-start": False}
    play_first(settings)
    forget_client(Run.reopen(Path(settings["workspace"])), "praxis-huber")

    messages = play_again(settings)

    (task,) = (message.content for message in messages if message.metadata.dst_node_id == 19 and message.content)
    assert task["config"]["refused"] == "the operator removed this client from the run"
    assert told(messages) == []


def test_a_real_client_that_comes_again_from_another_node_sends_its_manifest_alone(settings: dict, tmp_path: Path):
    for split in ("train", "validation", "test"):
        draw_classes(tmp_path / "images" / split, count=3)
    own = {"name": "praxis-huber", "data-path": str(tmp_path / "images"), "cache-path": str(tmp_path / "cache")}
    settings |= {"warm-start": False, "num-clients": 1, "architectures": "small_resnet", "local-epochs": 1}
    replies = []

    def client(question: Message) -> Message:
        handlers = {MessageType.QUERY: client_app.answer_question, MessageType.TRAIN: client_app.train_and_upload}
        handler = handlers.get(question.metadata.message_type, client_app.take_and_evaluate)
        replies.append(handler(question, Context(1, 9, own, RecordDict(), settings)))
        return replies[-1]

    play(settings, {9: [client, client]})
    (Path(settings["workspace"]) / "nodes.json").unlink()
    play(settings, {19: [client, client, client]})

    assert [set(reply.content) for reply in replies] == [
        {"arrays", "statistics", "manifest"},
        {"evaluation"},
        {"answer"},
        {"manifest"},
        {"evaluation"},
    ]
