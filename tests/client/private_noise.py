"""Short trainings of a client of noise, private unless a test asks otherwise."""

from pathlib import Path

import pytest

from common.clients.data import ClientData
from common.config.node import PrivacyConfig
from common.config.run import LocalTrainingConfig
from common.upload import Upload
from fedlmg_client import training
from tests.client.noise import noise_data

CONFIG = LocalTrainingConfig(local_epochs=2, local_batch_size=8, image_size=16)
PRIVATE = PrivacyConfig(dp_epsilon=8.0)


@pytest.fixture
def data() -> ClientData:
    return noise_data(24, 12, "digits/0")


def train(
    data: ClientData,
    cache: Path,
    architecture: str = "small_resnet",
    privacy: PrivacyConfig = PRIVATE,
    config: LocalTrainingConfig = CONFIG,
) -> Upload:
    return training.train(data, architecture, config, 0, cache, "cpu", privacy)
