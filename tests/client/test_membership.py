"""What a model gives away is measured and told, and a client sends no more than its owner allows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from common.clients import node_config
from common.clients.data import ClientData
from common.config.node import PrivacyConfig
from common.config.run import Config, ConfigError
from common.models import architectures
from common.models.predictor import Classifier
from common.telling import ToldError
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import audit, uploading
from fedlmg_client.cli import app
from fedlmg_client.measured import Measured
from fedlmg_client.models import Model
from tests.client import private_noise
from tests.client.private_noise import CONFIG, train

FOLDER = {"dataset": "", "image-size": 16, "local-epochs": 1}

data = private_noise.data


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
    measured = audit.membership_from_scores(torch.tensor(members), torch.tensor(others))

    assert (measured.auc, measured.tpr_at_1_percent_fpr) == (auc, found)


def test_one_false_alarm_in_a_hundred_is_allowed():
    others = torch.cat([torch.zeros(99), torch.tensor([9.0])])

    assert audit.membership_from_scores(torch.ones(50), others).tpr_at_1_percent_fpr == 1.0


def test_few_images_say_nothing(data: ClientData):
    few = data.test.choose(torch.arange(5))

    assert audit.measure_membership(torch.nn.Identity(), lambda images: images, data.train, few) is None


def test_an_upload_says_what_it_gives_away(data: ClientData, tmp_path: Path):
    noise_learned_by_heart = replace(CONFIG, local_epochs=20, local_batch_size=4)

    found = train(data, tmp_path, "small_mlp", PrivacyConfig(), noise_learned_by_heart).manifest.membership

    assert found.auc > 0.7
    assert (found.members, found.others) == (24, 24)


@pytest.fixture
def folder_of_noise(tmp_path: Path) -> dict[str, str]:
    """Node config of a client with 24 images in each split."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for index in range(12):
                noise = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(noise.numpy()).save(tmp_path / "images" / split / label / f"{index}.png")
    return {"data-path": str(tmp_path / "images"), "cache-path": str(tmp_path / "cache")}


def test_a_model_that_gives_too_much_away_is_not_sent(folder_of_noise: dict[str, str]):
    node = folder_of_noise | {"max-membership-auc": 0.01}

    with pytest.raises(ValueError, match=r"above the 'max-membership-auc' of 0\.01, so nothing was sent"):
        uploading.make_upload(node, Config.from_run_config(FOLDER))


@pytest.mark.parametrize("epsilon", [0.0, 8.0])
def test_what_the_attack_measured_is_not_told_to_the_server(folder_of_noise: dict[str, str], epsilon: float):
    node = folder_of_noise | {"max-membership-auc": 0.01, "dp-epsilon": epsilon}

    with pytest.raises(ToldError) as caught:
        uploading.make_upload(node, Config.from_run_config(FOLDER))

    assert caught.value.public == "its model is above its own 'max-membership-auc', so it sent nothing"


def test_what_the_budget_does_not_pay_for_stays_with_the_client(folder_of_noise: dict[str, str]):
    records = uploading.make_upload(folder_of_noise | {"dp-epsilon": 8.0}, Config.from_run_config(FOLDER)).to_records()

    manifest = json.loads(records["manifest"]["json"])
    assert manifest["privacy"]["epsilon"] == 8.0
    assert manifest["membership"] is None
    assert "secret" not in records["manifest"]["json"]


def test_a_real_client_decides_in_its_node_config_alone(folder_of_noise: dict[str, str]):
    config = Config.from_run_config({"dp-epsilon": 1.0, "max-membership-auc": 0.6})

    decided = node_config.privacy_of(folder_of_noise | {"dp-epsilon": 8.0}, config)

    assert (decided.dp_epsilon, decided.max_membership_auc) == (8.0, 1.0)


def test_virtual_clients_decide_as_the_simulation_says():
    config = Config.from_run_config({"dp-epsilon": 1.0, "max-membership-auc": 0.6})

    decided = node_config.privacy_of({"partition-id": 1}, config)

    assert (decided.dp_epsilon, decided.max_membership_auc) == (1.0, 0.6)


@pytest.mark.parametrize(("key", "value"), [("dp-epsilon", -1.0), ("max-membership-auc", "0.6")])
def test_a_client_s_own_keys_are_checked(folder_of_noise: dict[str, str], key: str, value: object):
    with pytest.raises(ConfigError, match=key):
        uploading.make_upload(folder_of_noise | {key: value}, Config.from_run_config(FOLDER))


def test_the_audit_of_a_finished_model_leaves_out_classes_that_it_does_not_know(folder_of_noise: dict[str, str]):
    torch.manual_seed(0)
    model = Classifier(architectures.build("small_resnet", 2, 16), ["fox", "Cat"], PreprocessSpec(16))

    with pytest.raises(ValueError, match="has 12 and 24: add images"):
        audit.audit_folder(model, Path(folder_of_noise["data-path"]))


@pytest.fixture
def model_of_noise(tmp_path: Path) -> str:
    """Folder of an untrained model."""
    model = architectures.build("small_resnet", 2, 16)
    spec = {
        "architecture": "small_resnet",
        "class_names": ["cat", "dog"],
        "preprocessing": PreprocessSpec(16).to_json(),
    }
    Model.described(spec, model.state_dict()).save(
        tmp_path / "model", Measured.nothing("site-a", "nobody asked for it")
    )
    return str(tmp_path / "model")


def test_the_audit_command_says_what_a_model_gives_away(folder_of_noise: dict[str, str], model_of_noise: str):
    done = CliRunner().invoke(app, ["audit", folder_of_noise["data-path"], "--model", model_of_noise])

    assert done.exit_code == 0
    assert "risk of this model: low (AUC 0." in " ".join(done.output.split())


@pytest.mark.parametrize(("gigabytes", "files"), [([], 1), (["--image-gigabytes", "0"], 0)])
def test_the_audit_command_keeps_no_more_decoded_images_than_it_may(
    folder_of_noise: dict[str, str],
    model_of_noise: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gigabytes: list[str],
    files: int,
):
    monkeypatch.setattr("common.datasets.readers.squares.MOST_IN_MEMORY", 0)
    monkeypatch.setenv("FEDLMG_CACHE", str(tmp_path / "kept"))

    done = CliRunner().invoke(app, ["audit", folder_of_noise["data-path"], "--model", model_of_noise, *gigabytes])

    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "kept" / "decoded-images").glob("*.uint8"))) == files


def test_a_stop_that_cannot_be_measured_stops():
    with pytest.raises(ValueError, match="fewer than 20 training images"):
        uploading._check_membership(None, 0.6)
