"""What a baseline must say of itself: its accuracy, and costs that are counted alike for all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from common.names import safe_name
from common.start import Start
from fedlmg_server.general.models import REPLAY
from fedlmg_server.general.starts import load_replay
from fedlmg_server.general.training import GeneralModel
from fedlmg_server.run import Run


class DoesNotApply(ValueError):
    """The baseline needs something that this run does not have; the message says what, in a clause."""


@dataclass
class Cost:
    """Sums over all clients."""

    rounds: int = 0
    """Communication rounds in which clients send something."""
    epochs: int = 0
    """Epochs that each client trains for."""
    upload_bytes: int = 0
    download_bytes: int = 0
    client_seconds: float = 0.0
    server_seconds: float = 0.0
    num_images: int = 0
    """Distinct images that the server trains on."""

    @contextmanager
    def timed(self, side: str) -> Iterator[None]:
        """Add the block's seconds to `client_seconds` or `server_seconds`."""
        started = time.monotonic()
        yield
        key = f"{side}_seconds"
        setattr(self, key, getattr(self, key) + time.monotonic() - started)


@dataclass(frozen=True)
class Outcome:
    """Accuracy in [0, 1] on each client's test images, and what it cost."""

    per_client: dict[str, float]
    cost: Cost
    attack_success: float | None = None
    """Of a backdoor, in [0, 1]; None where it was not measured."""


def cost_of_uploads(run: Run) -> Cost:
    """What a baseline that starts from the uploads has cost before the server begins."""
    training = [upload.manifest.training for upload in run.uploads]
    return Cost(
        rounds=1,
        epochs=max((len(each.history) for each in training), default=0),
        upload_bytes=sum(upload.num_bytes for upload in run.uploads),
        download_bytes=bytes_of_starts(run),
        client_seconds=sum(each.seconds for each in training)
        + sum(copy.seconds for upload in run.uploads if (copy := upload.manifest.student_copy)),
        server_seconds=seconds_of_general(run),
    )


def seconds_of_general(run: Run) -> float:
    """Seconds of the run's stages that made general images and models; next to none where they were in the cache."""
    return sum(seconds for stage, seconds in run.workspace.stage_seconds().items() if stage.startswith("general"))


def bytes_of_starts(run: Run) -> int:
    """Bytes that all clients were sent before they trained: general models and images to replay. The answers to the
    question, some hundred bytes each, are not counted."""
    student = run.config.distillation.student_architecture
    architectures = ((upload.manifest.architecture, bool(upload.manifest.student_copy)) for upload in run.uploads)
    return sum(_bytes_of_start(run, {student} if copies else {own}) for own, copies in architectures)


def bytes_of_starts_to_personalise(run: Run) -> int:
    """Bytes that all clients are sent beside the returned model: the student's general model and images to replay."""
    return len(run.uploads) * _bytes_of_start(run, {run.config.distillation.student_architecture})


def _bytes_of_start(run: Run, architectures: set[str]) -> int:
    folder = run.workspace.general
    if not run.config.general.warm_start or not (folder / REPLAY).exists():
        return 0
    files = {name: folder / f"{safe_name(name)}.safetensors" for name in architectures}
    models = {name: GeneralModel.read(file) for name, file in files.items() if file.exists()}
    weights = {name: model.weights for name, model in models.items() if model.is_offered}
    return Start([], run.preprocess, run.config.general.looks, weights, load_replay(run)).num_bytes


def bytes_to_every_client(run: Run, model: torch.nn.Module) -> int:
    """Bytes of sending one model to every client."""
    return len(run.uploads) * num_bytes(model)


def bytes_of_sharing_uploads(run: Run) -> int:
    """Bytes of sending each client the uploads of all other clients."""
    return (len(run.uploads) - 1) * sum(upload.num_bytes for upload in run.uploads)


def num_bytes(model: torch.nn.Module) -> int:
    """Size of a state dict as it is."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
