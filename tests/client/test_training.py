"""A client's training can be cut off, continued and repeated without changing its upload."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.clients.data import ClientData
from common.config import Config
from common.config.node import NodeSettings, PrivacyConfig
from common.config.run import LARGEST_SEED, LocalTrainingConfig
from common.datasets.labeled_images import LabeledView
from common.models import architectures
from common.storage.images import ImageFile, ImageView
from common.storage.tensors import write_tensors
from common.upload import Upload
from fedlmg_client import training
from fedlmg_server.collection.upload_checks import check_upload
from tests.client.noise import noise_data

CONFIG = LocalTrainingConfig(local_epochs=3, local_batch_size=4, image_size=16)


class CutOffError(Exception):
    """Stands for a power cut."""


@pytest.fixture
def data() -> ClientData:
    # Nine training images in batches of four leave a last batch of one.
    return noise_data(9, 4)


def run(data: ClientData, cache: Path, architecture: str = "small_resnet", **changes: object):
    return training.train(data, architecture, replace(CONFIG, **changes), 0, data.name, cache, "cpu")


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


def test_float16_upload_keeps_integer_and_0_dim_buffers(data: ClientData, tmp_path: Path):
    upload = run(data, tmp_path)

    counters = {tensor.dtype for name, tensor in upload.arrays.items() if name.endswith("num_batches_tracked")}
    others = {tensor.dtype for name, tensor in upload.arrays.items() if not name.endswith("num_batches_tracked")}
    assert (counters, others) == ({torch.int64}, {torch.float16})


def test_statistics_by_class_have_a_row_for_every_class(data: ClientData, tmp_path: Path):
    upload = run(data, tmp_path, statistics="class")

    assert {moments.mean.shape[0] for moments in upload.statistics.values()} == {2}


def test_statistics_by_cluster_have_as_many_rows_for_every_class(data: ClientData, tmp_path: Path):
    upload = run(data, tmp_path, statistics="class/4")

    assert {moments.mean.shape[:2] for moments in upload.statistics.values()} == {(4, 2)}


def test_upload_without_validation_images_has_the_last_weights(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    empty = data.validation.choose(torch.arange(0))
    save, after_epoch = training.save_training, []

    def record(path: Path, model: torch.nn.Module, *rest: object) -> None:
        after_epoch.append(model.head.weight.detach().half())
        save(path, model, *rest)

    monkeypatch.setattr(training, "save_training", record)

    upload = run(replace(data, validation=empty), tmp_path)

    assert upload.manifest.training.validation_accuracy is None
    assert [torch.equal(upload.arrays["head.weight"], weight) for weight in after_epoch] == [False, False, True]


def test_the_largest_seed_trains(data: ClientData, tmp_path: Path):
    config = replace(CONFIG, local_epochs=1)

    upload = training.train(data, "small_mlp", config, LARGEST_SEED, data.name, tmp_path, "cpu")

    assert [name for name, tensor in upload.arrays.items() if not tensor.isfinite().all()] == []
    assert upload.arrays


@pytest.mark.parametrize("name", ["dog\n", "d" * 101])
def test_a_class_name_that_the_server_would_refuse_is_said_before_training(data: ClientData, tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="must have 1 to 100 printable characters"):
        run(replace(data, class_names=["cat", name]), tmp_path)


def test_training_starts_from_the_named_weights(data: ClientData, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = run(data, tmp_path / "first")
    weights = tmp_path / "weights.pth"
    torch.save(first.arrays, weights)

    run(data, tmp_path / "second", initialisation=str(weights))

    said = [line for line in capsys.readouterr().out.splitlines() if str(weights) in line]
    assert len(said) == 1
    assert said[0].endswith("not initialised: head.weight, head.bias")


def test_a_single_training_image_is_refused_by_the_clients_name(data: ClientData, tmp_path: Path):
    single = data.train.choose(torch.arange(1))

    with pytest.raises(ValueError, match="client 'tiny' has 1"):
        run(replace(data, train=single), tmp_path)


def end_with(value: float, monkeypatch: pytest.MonkeyPatch, name: str = "running_var") -> None:
    """Let trainings end with this value in the last tensor of that name."""
    fit = training.fit

    def fitted(model: torch.nn.Module, *arguments: object, **more: object) -> dict:
        progress = fit(model, *arguments, **more)
        last = [tensor for key, tensor in model.state_dict().items() if key.endswith(name)][-1]
        last.flatten()[0] = value
        return progress

    monkeypatch.setattr(training, "fit", fitted)


def test_a_value_beyond_float16_is_sent_in_float32_and_told(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    end_with(70_000.0, monkeypatch)

    upload = Upload.from_records(run(data, tmp_path).to_records())

    wide = [name for name, tensor in upload.arrays.items() if tensor.dtype == torch.float32 and tensor.dim()]
    assert len(wide) == 1
    assert upload.arrays[wide[0]][0] == 70_000
    assert f"'{wide[0]}' first, have values of up to 70000, more than float16 holds" in capsys.readouterr().out
    check_upload(upload, Config.from_run_config({"dataset": "", "image-size": 16}))


@pytest.mark.parametrize(("value", "name"), [(torch.nan, "weight"), (torch.inf, "running_var")])
def test_a_training_that_ends_in_infinity_sends_nothing(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, name: str
):
    end_with(value, monkeypatch, name)

    with pytest.raises(ValueError, match=r"must end with finite .*nothing was sent: lower 'local-learning-rate'"):
        run(data, tmp_path)


@pytest.mark.parametrize(
    ("source", "mean"), [("imagenet", (0.485, 0.456, 0.406)), ("weights.safetensors", (0.5, 0.5, 0.5))]
)
def test_weights_of_imagenet_see_images_as_they_learned_to(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, mean: tuple[float, ...]
):
    weights = architectures.build("squeezenet1_1", 2, 32).state_dict()
    monkeypatch.chdir(tmp_path)
    write_tensors(Path("weights.safetensors"), weights)
    monkeypatch.setattr(training.pretrained, "_imagenet", lambda name: weights)

    upload = run(data, tmp_path / "cache", "squeezenet1_1", initialisation=source, local_epochs=1, image_size=32)

    assert upload.preprocess.mean == mean
