"""A client's training can be cut off, continued and repeated without changing its upload."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.clients.data import ClientData
from common.config.node import NodeSettings, PrivacyConfig
from common.config.run import LocalTrainingConfig
from common.datasets.labeled_images import LabeledView
from common.models import architectures
from common.storage.images import ImageFile, ImageView
from fedlmg_client import training
from tests.client import short_training
from tests.client.short_training import run

data = short_training.data


class CutOffError(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("architecture", ["small_mobilenet_v3", "small_convnext", "small_vit"])
def test_training_cut_off_after_an_epoch_ends_with_the_same_weights(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
):
    whole = run(data, tmp_path / "whole", architecture)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_print_progress", _cut_off)
        with pytest.raises(CutOffError):
            run(data, tmp_path / "cut", architecture)

    resumed = run(data, tmp_path / "cut", architecture)

    assert resumed.manifest.sha256 == whole.manifest.sha256


def test_a_training_whose_checkpoint_is_damaged_starts_again(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = run(data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_print_progress", _cut_off)
        with pytest.raises(CutOffError):
            run(data, tmp_path / "cut")
    (checkpoint,) = (tmp_path / "cut").glob("*/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])

    resumed = run(data, tmp_path / "cut")

    assert f"the checkpoint {checkpoint} is damaged, so its training starts again" in capsys.readouterr().out
    assert resumed.manifest.sha256 == whole.manifest.sha256


def _cut_off(*_: object) -> None:
    raise CutOffError


def test_images_that_lie_in_a_file_train_the_same_weights(data: ClientData, tmp_path: Path):
    def in_file(split: str) -> LabeledView:
        part: LabeledView = getattr(data, split)
        (tmp_path / split).write_bytes(part.images.read().numpy().tobytes())
        return LabeledView(ImageView.of(ImageFile(tmp_path / split, part.images.shape)), part.labels)

    stored = replace(data, train=in_file("train"), validation=in_file("validation"), test=in_file("test"))

    of_file = run(stored, tmp_path / "file", statistics="class/2")

    of_memory = run(data, tmp_path / "memory", statistics="class/2")
    assert of_file.manifest.sha256 == of_memory.manifest.sha256
    assert of_file.manifest.membership == of_memory.manifest.membership
    for name, moments in of_memory.statistics.items():
        assert torch.equal(of_file.statistics[name].mean, moments.mean)


def test_second_call_returns_the_cached_upload(data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = run(data, tmp_path)
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    second = run(data, tmp_path)

    assert second.manifest == first.manifest


@pytest.mark.parametrize("file", ["model.safetensors", "statistics.safetensors", "manifest.json"])
def test_a_finished_training_that_is_damaged_is_named_and_what_to_do(data: ClientData, tmp_path: Path, file: str):
    run(data, tmp_path)
    (damaged,) = tmp_path.glob(f"*/upload/{file}")
    damaged.write_bytes(damaged.read_bytes()[:20])

    with pytest.raises(ValueError, match=f"{damaged.parent} is damaged .*: remove that folder"):
        run(data, tmp_path)


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"class_names": ["cat", "fox"]}])
def test_other_data_is_trained_anew(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
):
    run(data, tmp_path)
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    with pytest.raises(CutOffError):
        run(replace(data, **change), tmp_path)


@pytest.mark.parametrize(
    "setting",
    [{"image_gigabytes": 64.0}, {"share_evaluation": False}, {"max_replay_megabytes": 50.0}, {"name": "other"}],
)
def test_a_node_setting_that_changes_no_weight_keeps_the_finished_training(data: ClientData, setting: dict):
    keys = [
        training.cache_key(
            data, "small_mlp", LocalTrainingConfig(), NodeSettings(dp_epsilon=3.0, **changed), 0, None, "none"
        )
        for changed in ({}, setting)
    ]

    assert keys[0] == keys[1]


@pytest.mark.parametrize("setting", [{"dp_epsilon": 2.0}, {"dp_delta": 1e-6}])
def test_another_budget_is_another_training(data: ClientData, setting: dict):
    asked = [PrivacyConfig(dp_epsilon=3.0), PrivacyConfig(**{"dp_epsilon": 3.0} | setting)]

    keys = {training.cache_key(data, "small_mlp", LocalTrainingConfig(), privacy, 0, None, "none") for privacy in asked}

    assert len(keys) == 2


def test_another_file_of_initial_weights_under_the_same_name_is_trained_from_anew(data: ClientData, tmp_path: Path):
    weights = tmp_path / "weights.pth"
    checksums = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        torch.save(architectures.build("small_resnet", 5, 16).state_dict(), weights)
        checksums.append(run(data, tmp_path / "cache", initialisation=str(weights), local_epochs=1).manifest.sha256)

    assert checksums[0] == checksums[2] != checksums[1]


def test_initial_weights_that_moved_are_the_same_weights(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = tmp_path / "weights.pth"
    torch.save(architectures.build("small_resnet", 5, 16).state_dict(), weights)
    first = run(data, tmp_path / "cache", initialisation=str(weights))
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    second = run(data, tmp_path / "cache", initialisation=str(weights.rename(tmp_path / "moved.pth")))

    assert second.manifest == first.manifest


def test_what_another_version_trained_is_trained_anew(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(data, tmp_path)
    monkeypatch.setattr(training, "RECIPE", training.RECIPE + 1)
    monkeypatch.setattr(training, "_train_epoch", _cut_off)

    with pytest.raises(CutOffError):
        run(data, tmp_path)


@pytest.mark.parametrize("changed", ["nets/build.py", "nets/parts.py"])
def test_a_builder_whose_source_changed_is_trained_anew(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "parts.py").write_text("from torch.nn import Flatten, LazyLinear, Linear, Sequential\n")
    (tmp_path / "nets" / "build.py").write_text(
        "from nets import parts\n\n\ndef build(classes, size):\n"
        "    return parts.Sequential(parts.Flatten(), parts.Linear(3 * size**2, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run(data, tmp_path / "cache", "nets.build:build")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_train_epoch", _cut_off)
        assert run(data, tmp_path / "cache", "nets.build:build")
        with open(tmp_path / changed, "a") as source:
            source.write("\n# another net\n")

        with pytest.raises(CutOffError):
            run(data, tmp_path / "cache", "nets.build:build")
    for name in ("nets", "nets.parts", "nets.build"):
        sys.modules.pop(name)
