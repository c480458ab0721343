"""A client's answer to TRAIN: its upload, or the one sentence that says why there is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from common.upload import Upload
from fedlmg_client.client_app import train_and_upload
from fedlmg_server.flower.compat import act_as_task
from tests.common.pictures import draw_classes

RUN_CONFIG = {"dataset": "", "local-epochs": 1, "architectures": "small_resnet"}


@pytest.fixture
def node_config(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A client with three plain images of each of two classes, in a process that Flower has stamped."""
    for split in ("train", "validation", "test"):
        draw_classes(tmp_path / "images" / split, count=3)
    with act_as_task():
        yield {"name": "site-a", "data-path": str(tmp_path / "images"), "cache-path": str(tmp_path / "cache")}


def answer(node_config: dict[str, str], megabytes: float, **more: str) -> RecordDict:
    question = RecordDict({"config": ConfigRecord({"have": "", "max-upload-megabytes": megabytes, **more})})
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG)
    return train_and_upload(Message(question, 7, MessageType.TRAIN), context).content


def test_the_upload_is_of_the_clients_own_images(node_config: dict[str, str]):
    upload = Upload.from_records(answer(node_config, 10.0))

    assert (upload.client, upload.class_names) == ("site-a", ["cat", "dog"])


def test_an_upload_above_the_servers_cap_is_said_and_not_sent(node_config: dict[str, str]):
    reply = answer(node_config, 0.1)

    assert list(reply) == ["error"]
    assert "the server accepts at most 0.1 MB" in reply["error"]["reason"]


def test_a_client_that_the_server_refuses_trains_nothing_and_says_why(
    node_config: dict[str, str], capsys: pytest.CaptureFixture
):
    reply = answer(node_config, 10.0, refused="its architecture is unknown")

    assert reply["error"]["reason"].endswith("nothing was trained: its architecture is unknown")
    assert "its architecture is unknown" in capsys.readouterr().out
    assert not list((Path(node_config["cache-path"])).glob("*/upload"))


@pytest.mark.parametrize("source", ["missing.safetensors", "imagenet"])
def test_initial_weights_that_cannot_be_had_are_said(node_config: dict[str, str], source: str):
    reply = answer(node_config | {"initialisation": source}, 10.0)

    assert "initialisation" in reply["error"]["reason"]
