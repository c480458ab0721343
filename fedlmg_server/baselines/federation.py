"""What every rival is given, and what it must say of itself: accuracy, and costs that are counted alike for all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.config import Config, ConfigError
from common.datasets.labeled_images import LabeledImages
from common.labels import union_of_names
from common.labels.maps import mark_known
from common.upload import Upload, load_all
from common.vision.metrics import accuracy, predict
from fedlmg_server.baselines import compare
from fedlmg_server.distillation import aggregate
from fedlmg_server.workspace import Workspace


class DoesNotApply(ValueError):
    """The rival asks for what this federation has not; the message says what, in a clause."""


@dataclass
class Cost:
    """Sums over all clients."""

    rounds: int = 0
    """Exchanges in which clients send something."""
    epochs: int = 0
    """That each client trains."""
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
    """Accuracy in [0, 1] on each client's test images, and what it took."""

    per_client: dict[str, float]
    cost: Cost


@dataclass(frozen=True)
class Federation:
    """The fit uploads of a finished workspace, and the data of its virtual clients."""

    config: Config
    workspace: Workspace
    uploads: list[Upload]
    device: torch.device
    trains: dict[str, LabeledImages] = field(repr=False)
    """Client -> its training images, labels in `class_names`; in the order of `uploads`."""
    tests: dict[str, LabeledImages] = field(repr=False)
    """Client -> its test images."""
    public: torch.Tensor | None = field(default=None, repr=False)
    """Unlabelled public images, uint8 (N, 3, h, w); None: the set that trained the embedded diffusion model."""

    @classmethod
    def of(
        cls,
        config: Config,
        workspace: Workspace,
        uploads: list[Upload],
        device: torch.device,
        public: torch.Tensor | None = None,
    ) -> "Federation":
        splits = [compare.real(config, uploads, split) for split in ("train", "test")]
        return cls(config, workspace, uploads, device, *splits, public)

    @classmethod
    def of_run(cls, folder: Path, device: torch.device) -> "Federation":
        """That of a finished run.

        Raises
        ------
        ConfigError: there is no run, or its clients are not virtual, so that their images are not at hand.
        """
        workspace, config = Workspace.existing(folder)
        federation = cls.of(config, workspace, list(load_all(workspace.uploads, config)), device)
        if not federation.tests:
            raise ConfigError(f"{workspace.root} is no run of virtual clients: their images are not at hand")
        return federation

    @property
    def class_names(self) -> list[str]:
        return union_of_names([upload.class_names for upload in self.uploads])

    @property
    def known(self) -> dict[str, torch.Tensor]:
        """Client -> bool (classes,), which of `class_names` it knows."""
        return {upload.client: mark_known(upload.class_names, self.class_names) for upload in self.uploads}

    @property
    def num_updates(self) -> int:
        """Batches that every student trains for."""
        return aggregate.num_updates(self.config, self.uploads)

    def student(self) -> torch.nn.Module:
        return aggregate.student(self.config, len(self.class_names), self.uploads, self.device)

    def measure(self, model: torch.nn.Module) -> dict[str, float]:
        """Accuracy of one model of `class_names` on each client's test images."""
        preprocess = aggregate.preprocessing(self.config)
        return {
            client: accuracy(predict(model, preprocess, test.images), test.labels)
            for client, test in self.tests.items()
        }

    def alike(self) -> str:
        """The architecture that all clients share.

        Raises
        ------
        DoesNotApply: they differ, or see images of different sizes.
        """
        names = sorted({upload.manifest["architecture"] for upload in self.uploads})
        if len(names) > 1:
            raise DoesNotApply(f"clients have unlike architectures ({', '.join(names)})")
        if len({upload.preprocess for upload in self.uploads}) > 1:
            raise DoesNotApply("clients preprocess their images differently")
        return names[0]

    def one_exchange(self) -> Cost:
        """What every rival that starts from the uploads has cost before the server begins."""
        training = [upload.manifest["training"] for upload in self.uploads]
        return Cost(
            rounds=1,
            epochs=max((len(each["history"]) for each in training), default=0),
            upload_bytes=sum(upload.num_bytes for upload in self.uploads),
            client_seconds=sum(each.get("seconds", 0.0) for each in training),
        )

    def sent_back(self, model: torch.nn.Module) -> int:
        """Bytes of one model to every client."""
        return len(self.uploads) * num_bytes(model)

    def exchanged(self) -> int:
        """Bytes when each client is sent the uploads of all others."""
        return (len(self.uploads) - 1) * sum(upload.num_bytes for upload in self.uploads)


def num_bytes(model: torch.nn.Module) -> int:
    """Of a state dict as it is."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
