"""What an upload gives away, and training that bounds it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from opacus.accountants import RDPAccountant
from PIL import Image

from common import architectures
from common.config import Config, LocalTrainingConfig
from common.datasets.client_data import ClientData
from common.datasets.digits import LabeledImages
from fedlmg_client import audit, client_app, training
from tests.client.noise import noise_data

PRIVATE = LocalTrainingConfig(local_epochs=2, local_batch_size=8, image_size=16, dp_epsilon=8.0)


@pytest.fixture
def data() -> ClientData:
    return noise_data(24, 12, "digits/0")


def train(data: ClientData, cache: Path, architecture: str = "small_resnet", config: LocalTrainingConfig = PRIVATE):
    return training.train(data, architecture, config, 0, data.name, cache, "cpu")


@pytest.mark.parametrize(
    ("members", "others", "auc", "found"),
    [
        ([3.0, 4.0], [1.0, 2.0], 1.0, 1.0),
        ([1.0, 2.0], [3.0, 4.0], 0.0, 0.0),
        ([1.0, 1.0], [1.0, 1.0], 0.5, 0.0),
        ([1.0, 3.0], [2.0, 2.0], 0.5, 0.5),
    ],
)
def test_membership_of_scores(members: list[float], others: list[float], auc: float, found: float):
    measured = audit.of_scores(torch.tensor(members), torch.tensor(others))

    assert (measured.auc, measured.tpr_at_1_percent_fpr) == (auc, found)


def test_one_false_alarm_in_a_hundred_is_allowed():
    others = torch.cat([torch.zeros(99), torch.tensor([9.0])])

    assert audit.of_scores(torch.ones(50), others).tpr_at_1_percent_fpr == 1.0


def test_few_images_say_nothing(data: ClientData):
    few = LabeledImages(data.test.images[:5], data.test.labels[:5])

    assert audit.membership(torch.nn.Identity(), lambda images: images, data.train, few) is None


def test_an_upload_says_what_it_gives_away(data: ClientData, tmp_path: Path):
    noise_learned_by_heart = replace(PRIVATE, dp_epsilon=0.0, local_epochs=80, local_batch_size=4)

    found = train(data, tmp_path, config=noise_learned_by_heart).manifest["membership"]

    assert found["auc"] > 0.7
    assert (found["members"], found["others"]) == (24, 24)


def test_a_model_that_gives_too_much_away_is_not_sent(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for index in range(12):
                noise = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(noise.numpy()).save(tmp_path / "images" / split / label / f"{index}.png")
    keys = {"federation": "", "image-size": 16, "local-epochs": 1, "max-membership-auc": 0.01}
    node = {"data-path": str(tmp_path / "images"), "cache-path": str(tmp_path / "cache")}

    with pytest.raises(ValueError, match=r"above the 'max-membership-auc' of 0\.01, so nothing was sent"):
        client_app.make_upload(node, Config.from_run_config(keys))


def test_the_noise_is_what_the_budget_asks_for(data: ClientData, tmp_path: Path):
    privacy = train(data, tmp_path).manifest["privacy"]

    accountant = RDPAccountant()
    accountant.history = [(privacy["noise_multiplier"], 8 / 24, 2 * 3)]
    assert 7.5 < accountant.get_epsilon(privacy["delta"]) <= 8.0


def test_noise_reaches_the_weights(data: ClientData, tmp_path: Path):
    loose, strict = (train(data, tmp_path, config=replace(PRIVATE, dp_epsilon=epsilon)) for epsilon in (1e4, 0.5))

    start = architectures.with_group_norm(architectures.build("small_resnet", 2, 16)).state_dict()
    moved = [sum((upload.arrays[name].float() - start[name]).norm() for name in start) for upload in (loose, strict)]
    assert moved[1] > moved[0]


def test_private_training_cut_off_ends_with_the_same_weights(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train(data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_print_progress", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(data, tmp_path / "cut")

    assert train(data, tmp_path / "cut").manifest["sha256"] == whole.manifest["sha256"]


def test_nobody_can_draw_a_real_client_s_noise_again(data: ClientData, tmp_path: Path):
    real = replace(data, source="folder")

    first, second = (train(real, tmp_path / name).manifest["sha256"] for name in ("first", "second"))

    assert first != second


@pytest.mark.parametrize("architecture", ["small_resnet", "small_convnext", "small_mlp", "small_mobilenet_v3"])
def test_private_uploads_are_rebuilt_from_their_name(data: ClientData, tmp_path: Path, architecture: str):
    upload = train(data, tmp_path, architecture)

    assert upload.statistics == {}
    assert not architectures.has_batch_norm(upload.classifier())
    assert all(entry["train_loss"] is None for entry in upload.manifest["training"]["history"])
