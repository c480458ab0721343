"""Three epochs of a client of noise."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.clients.data import ClientData
from common.config.run import LocalTrainingConfig
from fedlmg_client import training
from tests.client.noise import noise_data

CONFIG = LocalTrainingConfig(local_epochs=3, local_batch_size=4, image_size=16)


@pytest.fixture
def data() -> ClientData:
    # Nine training images in batches of four leave a last batch of one.
    return noise_data(9, 4)


def run(data: ClientData, cache: Path, architecture: str = "small_resnet", **changes: object):
    return training.train(data, architecture, replace(CONFIG, **changes), 0, cache, "cpu")
