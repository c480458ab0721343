"""Two clients that see dark images of class 0 and bright ones of class 1: a case whose answer is known."""

from dataclasses import replace
from pathlib import Path

import torch

from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.upload import Upload, to_wire
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import trainer
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.forget import erase_client, make_again
from fedlmg_server.general.training import GeneralModel
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload

SETTINGS = {
    "warm-start": False,
    "images-per-class": 16,
    "student-batch-size": 16,
    "student-epochs": 12,
    "student-learning-rate": 0.05,
    "local-batch-size": 16,
}
NAMES = ["dark", "bright"]


def two_colors(count: int = 64) -> LabeledImages:
    labels = torch.arange(count) % 2
    images = torch.randint(0, 100, (count, 3, 32, 32)) + 150 * labels[:, None, None, None]
    return LabeledImages(images.to(torch.uint8), labels)


def trained(client: str, seed: int = 0) -> Upload:
    """A client that tells the two colours apart; `class_names` in the order of the labels."""
    config, data = Config.from_run_config(SETTINGS), two_colors()
    upload = make_upload(client, NAMES, seed=seed)
    model = upload.classifier().requires_grad_(True)
    trainer.train(model, TrainingSet(data.images, data.labels), upload.preprocess, config.distillation, seed, 24)
    return replace(upload, arrays=model.state_dict())


def virtual_run(uploads: list[Upload], folder: Path = Path("nowhere"), **settings: object) -> VirtualRun:
    """A run of these clients, in memory alone: every client trains and tests on the same images."""
    config = Config.from_run_config(SETTINGS | {key.replace("_", "-"): value for key, value in settings.items()})
    run = VirtualRun(config, Workspace(folder), torch.device("cpu"))
    run.uploads = uploads
    run.train, run.test = ({upload.client: shown() for upload in uploads} for _ in ("train", "test"))
    return run


def warm_run(uploads: list[Upload], folder: Path, general: Upload, **settings: object) -> VirtualRun:
    """A warm-started run of these clients; its general model has the weights of `general`, for the run's classes, and
    its replay are 8 images."""
    run = virtual_run(uploads, folder, warm_start=True, **settings)
    keep_general(run, general, run.class_names)
    replay, names = two_colors(8), "\n".join(run.class_names)
    images = {"images": replay.images, "labels": replay.labels}
    write_tensors(folder / "general" / "replay.safetensors", images, {"class_names": names})
    return run


def keep_general(run: VirtualRun, general: Upload, class_names: list[str]) -> None:
    """Fix the run's classes, and keep weights as its general model of them."""
    run.workspace.fix_class_names(class_names)
    weights = {name: to_wire(value) for name, value in general.arrays.items()}
    model = GeneralModel("small_resnet", class_names, weights, accuracy=1.0, num_held_out=100)
    model.write(run.workspace.general / "small_resnet.safetensors")


def forget_client(run: Run, client: str) -> None:
    """As `fedlmg forget` does."""
    erase_client(run, client)
    make_again(run)


def shown() -> LabeledImages:
    """Labels are in the union of the classes, which is sorted: bright comes first."""
    data = two_colors()
    return LabeledImages(data.images, 1 - data.labels)


def keep(run: VirtualRun, client: str, model: Upload, class_names: list[str], kind: str = "personal") -> None:
    """As a virtual client keeps its model."""
    folder = run.workspace.root / "virtual-clients" / client / kind
    write_tensors(folder / "model.safetensors", model.arrays)
    description = {"architecture": model.manifest.architecture, "class_names": class_names}
    write_json(folder / "model.json", description | {"preprocessing": PreprocessSpec().to_json()})
