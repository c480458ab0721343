"""A client that does not share its evaluation sends no accuracy on its test images, and keeps its own."""

from pathlib import Path

import pytest

from common import manifest
from common.manifest import Training
from common.upload import Upload
from fedlmg_client import training
from fedlmg_client.folders import find_upload
from tests.client import tiny_client
from tests.client.tiny_client import BOTH, _cut_off, send
from tests.client.tiny_start import make_start

images, node_config, flower = tiny_client.images, tiny_client.node_config, tiny_client.flower

pytestmark = pytest.mark.usefixtures("flower")


def accuracies(said: Training) -> list[float | None]:
    return [said.test_accuracy, said.test_accuracy_wire]


def sent(node_config: dict) -> list[float | None]:
    """The accuracies on test images in the upload that the server gets."""
    return accuracies(Upload.from_records(send(node_config, make_start(*BOTH).to_records())).manifest.training)


def kept(node_config: dict) -> list[float | None]:
    """The same in the client's cache."""
    return accuracies(manifest.read(find_upload(Path(node_config["cache-path"]))).training)


def test_a_client_that_shares_sends_its_accuracies(node_config: dict):
    assert None not in sent(node_config)


def test_a_client_that_does_not_share_sends_none_and_keeps_them(node_config: dict):
    told = sent(node_config | {"share-evaluation": False})

    assert told == [None, None]
    assert None not in kept(node_config)


def test_a_finished_upload_is_sent_without_accuracies_too(node_config: dict, monkeypatch: pytest.MonkeyPatch):
    sent(node_config)
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    told = sent(node_config | {"share-evaluation": False})

    assert told == [None, None]
