"""What a backdoor does to a model is measured on every client's images, with the attacker's trigger and target."""

from pathlib import Path

import pytest
import torch

from common.clients.backdoors import add_trigger
from common.config import Config
from common.datasets.labeled_images import LabeledImages
from fedlmg_server.baselines import attack, compare
from fedlmg_server.baselines.attack import Attack
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying

DIGITS = list("0123456789")


def run_with(faults: str) -> VirtualRun:
    config = Config.from_run_config({"warm-start": False, "num-clients": 2, "faults": faults})
    run = VirtualRun(config, Workspace(Path("nowhere")), torch.device("cpu"))
    clients = ("mnist", "optdigits")
    run.uploads = [saying(make_upload(name, DIGITS), data=f"digits/{name}") for name in clients]
    return run


def always(label: int) -> torch.Tensor:
    return torch.eye(10)[label]


def test_the_attack_marks_every_clients_images_of_other_classes():
    run = run_with("1:badnets")

    found = Attack.of_run(run)

    assert (found.attacker, found.target, list(found.images)) == ("optdigits", 0, ["mnist", "optdigits"])
    others = run.test["mnist"].images[run.test["mnist"].labels != 0]
    assert torch.equal(found.images["mnist"], add_trigger("badnets", others))


@pytest.mark.parametrize(("answer", "success"), [(0, 1.0), (1, 0.0)])
def test_success_is_the_share_that_is_called_what_the_attacker_wants(answer: int, success: float):
    found = Attack.of_run(run_with("1:blended"))

    assert found.success(lambda images: always(answer).expand(len(images), 10)) == success


def test_a_client_whose_images_are_all_of_the_target_does_not_count():
    run = run_with("1:badnets")
    test = run.test["mnist"]
    run.test["mnist"] = LabeledImages(test.images[test.labels == 0], test.labels[test.labels == 0])

    found = Attack.of_run(run)

    assert found.success(lambda images: always(0).expand(len(images), 10)) == 1.0


def test_without_a_backdoor_nothing_is_measured():
    run = run_with("1:few-epochs")

    assert attack.measure_attack(run, torch.nn.Identity()) is None
    assert compare.measure_untrained(run)[0]["ensemble"].attack_success is None


def test_the_attackers_own_model_and_the_ensemble_are_rows():
    rows = compare.measure_untrained(run_with("1:badnets"))[0]

    assert 0 <= rows["local-own"].attack_success <= 1
    assert 0 <= rows["ensemble"].attack_success <= 1
    assert rows["local-all"].attack_success is None


def test_a_trigger_changes_little_of_an_image():
    images = torch.full((2, 3, 32, 32), 120, dtype=torch.uint8)

    patch, pattern = add_trigger("badnets", images), add_trigger("blended", images)

    assert (patch != images).any(1).flatten(1).sum(1).tolist() == [16, 16]
    assert (pattern.int() - images.int()).abs().max() <= 0.2 * 135 + 1
