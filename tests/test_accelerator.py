"""Synthesis and training on an accelerator. Each test also runs on the CPU, so that the device alone is new."""

from pathlib import Path

import pytest
import torch

from common.clients.data import ClientData
from common.config import Config
from common.config.general import GeneralConfig
from common.config.run import DistillationConfig, LocalTrainingConfig
from common.config.synthesis import SynthesisConfig
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.devices import default_device
from common.upload import Upload
from common.vision.metrics import accuracy, predict
from fedlmg_client import training
from fedlmg_server.diffusion import opening
from fedlmg_server.distillation.parallel import train_students
from fedlmg_server.distillation.student import make_student
from fedlmg_server.run import Run
from fedlmg_server.synthesis.generate import generate_batch, guide_by
from fedlmg_server.synthesis.plan import plan_images
from fedlmg_server.trainer import TrainingSet
from fedlmg_server.workspace import Workspace
from tests.server import tiny_pipelines

CPU = torch.device("cpu")
NAMES = ["cat", "dog"]


@pytest.fixture(params=["cpu", pytest.param("accelerator", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the machine's accelerator."""
    if request.param == "cpu":
        return CPU
    if (found := default_device()) == CPU:
        pytest.skip("this machine has no accelerator that PyTorch can use")
    return found


def two_colors(count: int = 64) -> LabeledImages:
    """Dark images of class 0, bright ones of class 1."""
    labels = torch.arange(count) % 2
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (count, 3, 32, 32), generator=generator) + 150 * labels[:, None, None, None]
    return LabeledImages(images.to(torch.uint8), labels)


def make_images(folder: Path, upload: Upload, device: torch.device, is_guided: bool = True) -> torch.Tensor:
    """A batch that the device makes, moved to the CPU: float32 (4, 3, 16, 16)."""
    config = SynthesisConfig(diffusion_model=str(folder), num_inference_steps=4, noise_editing_steps=1)
    backend = opening.load_backend(config, device)
    guidance = guide_by(upload, config, device) if is_guided else None
    planned = plan_images(0, "site-a", NAMES, 2)

    images = generate_batch(backend, guidance, planned, NAMES, config)

    assert images.device.type == device.type
    return images.float().cpu()


@pytest.fixture(params=["own", "bfloat16"])
def number_format(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of denoiser and autoencoder: the device's own choice, and that of a card with bfloat16 on any device."""
    if request.param == "bfloat16":
        monkeypatch.setattr(opening, "_dtype", lambda device: torch.bfloat16)


@pytest.mark.usefixtures("number_format")
def test_a_guided_batch_is_that_of_the_cpu_but_for_rounding(device: torch.device, upload: Upload, tmp_path: Path):
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_dtype", lambda device: torch.float32)
        exact, plain = (make_images(folder, upload, CPU, is_guided) for is_guided in (True, False))

    images = make_images(folder, upload, device)

    rounding, effect = ((images - exact).abs().mean(), (plain - exact).abs().mean())
    assert 0 <= images.min() < images.max() <= 1
    assert rounding < 0.3 * effect


def test_students_learn_and_end_on_the_cpu(device: torch.device, upload: Upload):
    data = two_colors()
    config = Config(
        general=GeneralConfig(warm_start=False),
        synthesis=SynthesisConfig(images_per_class=32),
        distillation=DistillationConfig(student_epochs=6, student_batch_size=16, student_learning_rate=0.05),
    )
    run = Run(config, Workspace(Path("nowhere")), device)
    run.uploads = [upload]

    trained = dict(train_students(run, {"one": TrainingSet(data.images, data.labels)}))

    weights, history = trained["one"]
    assert {tensor.device for tensor in weights.values()} == {CPU}
    model = make_student(run)
    model.load_state_dict(weights)
    assert next(model.parameters()).device.type == device.type
    assert history[-1]["loss"] < history[0]["loss"]
    assert accuracy(predict(model, run.preprocess, data.images), data.labels) == 1.0


def test_a_client_learns_and_its_upload_can_be_sent(device: torch.device, tmp_path: Path):
    parts = [LabeledView.of(two_colors(count)) for count in (64, 16, 16)]
    data = ClientData("tiny", NAMES, *parts, "fingerprint", "folder")
    config = LocalTrainingConfig(local_epochs=6, local_batch_size=16)

    upload = training.train(data, "small_resnet", config, 0, tmp_path, device)

    received = Upload.from_records(upload.to_records())
    predicted = predict(received.classifier(device), received.preprocess, data.test.images)
    assert received.manifest.training.test_accuracy == 1.0
    assert accuracy(predicted, data.test.labels) == 1.0
