"""A client that is asked says what it will train, and what that costs it."""

import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from common.answer import Answer, read_answer
from fedlmg_client import probe
from fedlmg_client.client_app import answer_question
from tests.client import tiny_client
from tests.client.tiny_client import RUN_CONFIG

images, node_config, flower = tiny_client.images, tiny_client.node_config, tiny_client.flower


def ask(node_config: dict, **changes: object) -> RecordDict:
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG | changes)
    return answer_question(Message(RecordDict(), 7, MessageType.QUERY), context).content


def answer(node_config: dict, **changes: object) -> Answer:
    return read_answer(ask(node_config, **changes))


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
