"""A client that has uploaded and is sent the model that came back."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from common.evaluation import Evaluation
from common.start import Start
from fedlmg_client.client_app import take_and_evaluate
from fedlmg_client.uploading import make_upload
from fedlmg_server.flower.compat import act_as_task
from tests.client.tiny_client import CONFIG, RUN_CONFIG
from tests.client.tiny_start import CLASSES, make_start
from tests.common.pictures import draw_noise

START = make_start("small_resnet")
RETURNED = {"architecture": "small_resnet", "class_names": CLASSES, "preprocessing": START.preprocess.to_json()}
"""The description of the model that comes back."""


class CutOffError(BaseException):
    """Stands for a power cut, which no part of the client catches."""


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("uploaded")
    return upload_from(folder / "images", folder / "cache")


def upload_from(images: Path, cache: Path) -> dict[str, str]:
    """A client that has uploaded: 6 training, 60 validation, 10 test images."""
    for split, count in {"train": 3, "validation": 30, "test": 5}.items():
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                draw_noise(images / split / name / f"{index}.png", 1000 * count + 100 * label + index)
    node_config = {"name": "site-a", "data-path": str(images), "cache-path": str(cache)}
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
    """A client that has uploaded and not answered yet, in a process that Flower has stamped."""
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
    content = RecordDict(
        {
            "arrays": ArrayRecord(make_start("small_resnet", seed=seed).models["small_resnet"]),
            "config": ConfigRecord({"model": json.dumps(RETURNED)}),
            **(start.to_records() if start else {}),
        }
    )
    context = Context(1, 7, node_config, RecordDict(), RUN_CONFIG)
    return take_and_evaluate(Message(content, 7, MessageType.EVALUATE), context).content


def evaluate(node_config: dict, start: Start | None = START, seed: int = 1) -> Evaluation:
    return Evaluation.from_records(reply(node_config, start, seed))


def cache_of(node_config: dict) -> Path:
    return Path(node_config["cache-path"])


def cut_off(*_: object) -> None:
    raise CutOffError
