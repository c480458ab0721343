"""A training ends in an upload that the server can take, or in a sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.clients.data import ClientData
from common.config import Config
from common.config.run import LARGEST_SEED
from common.datasets.labeled_images import LabeledView
from common.models import architectures
from common.storage.images import ImageView
from common.storage.tensors import write_tensors
from common.upload import Upload
from common.vision.metrics import predict
from fedlmg_client import training
from fedlmg_server.collection.upload_checks import check_upload
from tests.client import short_training
from tests.client.short_training import CONFIG, run

data = short_training.data


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


def test_a_rare_class_is_learned_from_as_often_as_another(data: ClientData, tmp_path: Path):
    # The images do not tell the classes apart, so that the classifier learns how often it is shown each of them.
    grey = torch.full((32, 3, 16, 16), 128, dtype=torch.uint8)
    train = LabeledView(ImageView.of(grey), torch.tensor([0] * 28 + [1] * 4))
    nothing = data.validation.choose(torch.arange(0))

    upload = run(replace(data, train=train, validation=nothing), tmp_path, "small_mlp", local_epochs=10)

    (probabilities,) = predict(upload.classifier(), upload.preprocess, grey[:1])
    assert probabilities.tolist() == pytest.approx([0.5, 0.5], abs=0.2)


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

    upload = training.train(data, "small_mlp", config, LARGEST_SEED, tmp_path, "cpu")

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
