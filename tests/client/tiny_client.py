"""A client of a few images of noise, in a run that offers general models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from common.config import Config
from fedlmg_client.client_app import train_and_upload
from fedlmg_server.flower.compat import act_as_task
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


@pytest.fixture
def flower() -> Iterator[None]:
    with act_as_task():
        yield


def send(node_config: dict, start: RecordDict, megabytes: float = 10.0) -> RecordDict:
    question = ConfigRecord({"have": "", "max-upload-megabytes": megabytes})
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG)
    return train_and_upload(Message(RecordDict({"config": question, **start}), 7, MessageType.TRAIN), context).content


def _cut_off(*_: object) -> None:
    raise CutOffError
