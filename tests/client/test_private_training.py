"""Private training keeps its budget, and nobody else can draw its noise again."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from opacus.accountants import RDPAccountant
from opacus.accountants import utils as accountants

from common.clients.data import ClientData
from common.config.node import PrivacyConfig
from common.models import architectures
from fedlmg_client import private_training, training
from fedlmg_client.private_training import Budget
from tests.client import private_noise
from tests.client.private_noise import CONFIG, train

BUDGET = Budget(8.0, 1e-3, 1.0, 0.5, 0.25, 4.0, 3, b"secret")

data = private_noise.data


@pytest.fixture(scope="module", autouse=True)
def _noise_is_sought_once() -> Iterator[None]:
    """Opacus takes two seconds to find the noise of a budget, and most tests have the same one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountants, "get_noise_multiplier", cache(accountants.get_noise_multiplier))
        yield


def test_the_noise_is_what_the_budget_asks_for(data: ClientData, tmp_path: Path):
    privacy = train(data, tmp_path).manifest.privacy

    accountant = RDPAccountant()
    accountant.history = [(privacy.noise_multiplier, 8 / 24, 2 * 3)]
    assert 7.5 < accountant.get_epsilon(privacy.delta) <= 8.0


def test_noise_reaches_the_weights(data: ClientData, tmp_path: Path):
    loose, strict = (train(data, tmp_path, privacy=PrivacyConfig(dp_epsilon=epsilon)) for epsilon in (1e4, 0.5))

    start = architectures.with_group_norm(architectures.build("small_resnet", 2, 16)).state_dict()
    moved = [sum((upload.arrays[name].float() - start[name]).norm() for name in start) for upload in (loose, strict)]
    assert moved[1] > moved[0]


def test_a_budget_that_no_noise_keeps_is_said():
    with pytest.raises(ValueError, match=r"'dp-epsilon' 0\.001 .*: raise"):
        Budget.from_config(PrivacyConfig(dp_epsilon=0.001), CONFIG, 24, b"secret", "training")


def test_every_training_s_and_epoch_s_batches_and_noise_have_numbers_of_their_own():
    first = [
        replace(BUDGET, training=training, secret=secret).draw(epoch, purpose).uniform(1).item()
        for training in ("one", "two")
        for secret in (b"a", b"b")
        for epoch in range(20)
        for purpose in ("batches", "noise")
    ]

    assert len(set(first)) == 160


def test_the_noise_has_the_deviation_of_the_budget():
    budget = replace(BUDGET, noise_multiplier=3.0, max_grad_norm=0.5, batch_size=2.0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10_000))
    before = model[1].weight.detach().clone()
    optimizer = private_training.make_private_optimizer(torch.optim.SGD(model.parameters(), 1.0), budget)

    nothing = torch.zeros(0, 3, 2, 2), torch.zeros(0).long()
    private_training.take_private_step(model, optimizer, *nothing, budget.draw(0, "noise"))

    moved = model[1].weight.detach() - before
    assert abs(moved.std().item() - 3.0 * 0.5 / 2.0) < 0.01
    assert abs(moved.mean().item()) < 0.01


def test_batches_have_the_rate_of_the_budget():
    batches = private_training.poisson_batches(10_000, BUDGET, BUDGET.draw(0, "batches"))

    assert [abs(len(rows) / 10_000 - BUDGET.sample_rate) < 0.02 for rows in batches] == [True] * BUDGET.steps_per_epoch
    assert not torch.equal(batches[0], batches[1])


def test_no_image_weighs_more_than_the_norm_that_is_allowed():
    budget = replace(BUDGET, noise_multiplier=0.0, max_grad_norm=0.5, batch_size=1.0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    optimizer = private_training.make_private_optimizer(torch.optim.SGD(model.parameters(), 1.0), budget)

    image = torch.full((1, 3, 2, 2), 100.0)

    private_training.take_private_step(model, optimizer, image, model(image).argmin(1), BUDGET.draw(0, "noise"))

    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.5))


def test_a_batch_in_parts_makes_the_same_step(monkeypatch: pytest.MonkeyPatch):
    stepped = []
    for most in (private_training.MOST_VALUES, 1):
        monkeypatch.setattr(private_training, "MOST_VALUES", most)
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        optimizer = private_training.make_private_optimizer(torch.optim.SGD(model.parameters(), 1.0), BUDGET)
        noise = BUDGET.draw(0, "noise")
        for count in (5, 0, 3):
            images, labels = torch.rand(count, 3, 2, 2), torch.zeros(count).long()
            private_training.take_private_step(model, optimizer, images, labels, noise)
        stepped.append(model[1].weight.detach())

    torch.testing.assert_close(*stepped)


@pytest.mark.parametrize("architecture", ["small_resnet+groupnorm", "small_shufflenet_v2+groupnorm", "small_vit"])
def test_an_image_s_gradient_is_that_of_the_image_alone(architecture: str):
    torch.manual_seed(0)
    model = architectures.build(architecture, 2, 32)
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 0])
    torch.nn.init.normal_(list(model.parameters())[-2])

    private_training.compute_gradients_by_image(model, images, labels)

    together = [parameter.grad_sample[1] for parameter in model.parameters()]
    torch.nn.functional.cross_entropy(model(images[1:2]), labels[1:2]).backward()
    torch.testing.assert_close(together, [parameter.grad for parameter in model.parameters()], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "regnet_y_400mf"])
def test_stochastic_depth_and_nets_that_want_real_memory_are_prepared(architecture: str):
    model = architectures.with_group_norm(architectures.build(architecture, 2, 32))

    private_training.prepare_model(model, architecture, 32)

    assert [name for name, parameter in model.named_parameters() if parameter.grad_sample is None] == []


def test_a_net_that_cannot_be_taken_image_by_image_is_said():
    mixing = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.InstanceNorm2d(2, track_running_stats=True))

    with pytest.raises(ValueError, match="which 'mixing' does not support"):
        private_training.prepare_model(torch.nn.Sequential(mixing, torch.nn.Flatten()), "mixing", 8)


def test_private_training_starts_from_the_weights_of_the_net_without_groups(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(training.pretrained, "_imagenet", lambda name: asked.append(name) or {})

    with pytest.raises(ValueError, match="no tensor of 'imagenet' fits"):
        train(data, tmp_path, "resnet18", config=replace(CONFIG, initialisation="imagenet", image_size=32))

    assert asked == ["resnet18"]


@pytest.fixture
def train_until_cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[ClientData, Path], None]:
    """Training that a power cut ends after its first epoch."""

    def cut_off(*_: object) -> None:
        raise ZeroDivisionError

    def begin(data: ClientData, cache: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(training, "_print_progress", cut_off)
            with pytest.raises(ZeroDivisionError):
                train(data, cache)

    return begin


def test_private_training_cut_off_ends_with_the_same_weights(
    data: ClientData, tmp_path: Path, train_until_cut_off: Callable[[ClientData, Path], None]
):
    whole = train(data, tmp_path / "whole")

    train_until_cut_off(data, tmp_path / "cut")

    assert train(data, tmp_path / "cut").manifest.sha256 == whole.manifest.sha256


def test_a_real_client_s_training_cut_off_goes_on_with_the_same_noise(
    data: ClientData, tmp_path: Path, train_until_cut_off: Callable[[ClientData, Path], None]
):
    real = replace(data, source="folder")
    train_until_cut_off(real, tmp_path / "cut")
    shutil.copytree(tmp_path / "cut", tmp_path / "again")

    first, second = (train(real, tmp_path / name).manifest.sha256 for name in ("cut", "again"))

    assert first == second


def test_the_secret_is_its_owner_s_alone_and_gone_when_training_ends(
    data: ClientData, tmp_path: Path, train_until_cut_off: Callable[[ClientData, Path], None]
):
    real = replace(data, source="folder")
    train_until_cut_off(real, tmp_path)
    (secret,) = tmp_path.glob("*/noise.key")
    rights, length = secret.stat().st_mode & 0o777, secret.stat().st_size

    train(real, tmp_path)

    assert (rights, length) == (0o600, 32)
    assert not list(tmp_path.glob("*/noise.key"))


def test_a_secret_that_a_crash_left_is_removed_at_the_next_call(data: ClientData, tmp_path: Path):
    real = replace(data, source="folder")
    train(real, tmp_path)
    (upload,) = tmp_path.glob("*/upload")
    (upload.parent / "noise.key").write_bytes(bytes(32))

    train(real, tmp_path)

    assert not list(tmp_path.glob("*/noise.key"))


def test_nobody_can_draw_a_real_client_s_noise_again(data: ClientData, tmp_path: Path):
    real = replace(data, source="folder")

    first, second = (train(real, tmp_path / name).manifest.sha256 for name in ("first", "second"))

    assert first != second


@pytest.mark.parametrize("architecture", ["small_resnet", "small_convnext", "small_mlp", "small_mobilenet_v3"])
def test_private_uploads_are_rebuilt_from_their_name(data: ClientData, tmp_path: Path, architecture: str):
    upload = train(data, tmp_path, architecture)

    assert upload.statistics == {}
    assert not architectures.has_batch_norm(upload.classifier())
    assert [entry.train_loss for entry in upload.manifest.training.history] == [None, None]
