"""A rehearsal shows what a client sends in a round, and what it tells after it."""

from dataclasses import replace
from io import StringIO

import pytest
import torch
from opacus.accountants import utils as accountants
from rich.console import Console

from common.clients.data import load_client_data
from common.config import Config
from common.upload import sizes
from fedlmg_client import dry_run, uploading
from fedlmg_client.uploading import make_upload
from tests.client import tiny_client
from tests.client.tiny_client import CONFIG, RUN_CONFIG
from tests.client.tiny_start import make_start

images, node_config = tiny_client.images, tiny_client.node_config

COLD = Config.from_run_config(RUN_CONFIG | {"warm-start": False})
LATER = "When the returned model arrives, the client tells"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of a privacy budget is not computed."""
    monkeypatch.setattr(accountants, "get_noise_multiplier", lambda **_: 1.0)


def rehearse(node_config: dict, config: Config = CONFIG) -> tuple[int, str]:
    """The bytes that a rehearsal counts, and what it prints."""
    output = StringIO()
    total = dry_run.show_upload(node_config, config, Console(file=output, width=1000))
    return total, output.getvalue()


def test_a_rehearsal_shows_the_upload_to_the_byte(node_config: dict):
    total, said = rehearse(node_config, COLD)

    upload = make_upload(node_config, COLD).to_records()
    assert total == sum(sizes(upload).values())
    assert f"{total} bytes" in said


@pytest.mark.parametrize("own", [{}, {"upload": "student"}, {"dp-epsilon": 50.0}], ids=str)
def test_a_rehearsal_shows_the_parts_that_a_round_sends(node_config: dict, tmp_path, own: dict):
    _, said = rehearse(node_config | own)

    cells = [line.split("│") for line in said.splitlines() if line.startswith("│")]
    shown = {row[1].strip(): int(row[-2]) for row in cells}
    start = make_start("small_resnet", class_names=["Dog", "cat"])
    sent = sizes(make_upload(node_config | own | {"cache-path": str(tmp_path / "round")}, CONFIG, start).to_records())
    assert shown | {"manifest/json": 0} == sent | {"manifest/json": 0}


@pytest.mark.parametrize(
    ("own", "architecture"),
    [({}, "small_resnet"), ({"upload": "own"}, "small_mlp"), ({"upload": "student"}, "small_resnet")],
)
def test_a_rehearsal_says_which_classifier_starts_from_the_servers_model(
    node_config: dict, own: dict, architecture: str
):
    _, said = rehearse(node_config | own)

    assert f"In a round, '{architecture}' starts from the server's model" in said


def test_a_client_that_refuses_a_start_is_told_of_none(node_config: dict):
    _, said = rehearse(node_config | {"warm-start": False})

    assert "the server's model" not in said


@pytest.mark.parametrize(
    ("own", "config", "models"),
    [
        (
            {},
            CONFIG,
            "the returned model, your own model, the server's general model, the general model trained by you alone, "
            "your personal model",
        ),
        ({}, COLD, "the returned model, your own model, your personal model"),
        ({"dp-epsilon": 50.0}, CONFIG, "the returned model, your own model, the server's general model"),
    ],
)
def test_a_rehearsal_names_the_models_whose_accuracies_are_told(
    node_config: dict, own: dict, config: Config, models: str
):
    _, said = rehearse(node_config | own, config)

    told = "the number of your test images, 12, and on them the accuracy and the balanced accuracy of these"
    assert f"{LATER} {told}: {models}\n" in said


def test_a_rehearsal_says_that_a_client_which_refuses_tells_nothing(node_config: dict):
    _, said = rehearse(node_config | {"share-evaluation": False})

    assert f"{LATER} nothing, as you refused\n" in said


def test_a_rehearsal_without_test_images_says_that_no_accuracy_is_told(
    node_config: dict, monkeypatch: pytest.MonkeyPatch
):
    data = load_client_data(node_config, CONFIG)
    nothing = data.test.choose(torch.arange(0))
    monkeypatch.setattr(uploading, "load_client_data", lambda *_: replace(data, test=nothing))

    _, said = rehearse(node_config)

    assert f"{LATER} no accuracy, for you have no test images\n" in said
