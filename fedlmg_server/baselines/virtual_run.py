"""A run of virtual clients: their images are at hand here, so that every method can be measured on them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import torch

from common.clients.data import virtual_data, virtual_index
from common.config import Config, ConfigError
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.labels import parse_aliases
from common.labels.maps import find_indices
from common.models.predictor import Classifier
from common.vision.metrics import accuracy, balanced_accuracy, predict
from fedlmg_server import class_notes
from fedlmg_server.flower.versions import read_versions
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace

SHARED = ("uploads", "general", "witness", class_notes.FILE)
"""Parts of a workspace that do not change with the settings of synthesis and distillation."""


MOST_SHARED = 24
"""Test sets that every client's model reads."""


class Accuracies(dict[str, float]):
    """Client -> accuracy in [0, 1]; `balanced`: client -> the same, as the mean over the classes of its test images."""

    def __init__(self, plain: Mapping[str, float], balanced: Mapping[str, float]):
        super().__init__(plain)
        self.balanced = dict(balanced)

    @classmethod
    def of(cls, read: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> "Accuracies":
        """read: client -> probabilities (N, classes) and labels (N,)."""
        plain = {name: accuracy(found, labels) for name, (found, labels) in read.items()}
        balanced = {name: balanced_accuracy(found.argmax(1), labels) for name, (found, labels) in read.items()}
        return cls(plain, balanced)


def balanced_of(per_client: Mapping) -> dict[str, float]:
    """The balanced accuracies of `Accuracies`; of other accuracies none are known."""
    return per_client.balanced if isinstance(per_client, Accuracies) else {}


def choose_shared(clients: Iterable[str]) -> list[str]:
    """Clients whose test sets every client's model reads: all, or of many `MOST_SHARED`, evenly chosen, for else the
    time would grow with the square of their number."""
    names = list(clients)
    most = min(MOST_SHARED, len(names))
    return [names[number * len(names) // most] for number in range(most)]


def has_virtual_clients(run: Run) -> bool:
    """Whether the server can make every client's images; a client's own folder is not at hand."""
    return bool(_find_indices(run))


def _find_indices(run: Run) -> list[int]:
    """Number of each upload's virtual client; empty if a client is not virtual."""
    found = [virtual_index(upload.manifest.data, run.config) for upload in run.uploads]
    indices = [index for index in found if index is not None]
    return indices if len(indices) == len(found) else []


@dataclass(eq=False)
class VirtualRun(Run):
    """A run with the images of all its clients, which baselines train on; only a simulation has them."""

    public: torch.Tensor | None = field(default=None, repr=False)
    """Unlabelled public images, uint8 (N, 3, h, w); None: the set that trained the embedded diffusion model."""

    @classmethod
    def from_run(cls, run: Run, public: torch.Tensor | None = None) -> Self:
        """The same run with its clients' images.

        Raises
        ------
        ConfigError: a client is not virtual.
        """
        if not has_virtual_clients(run):
            raise ConfigError(f"{run.workspace.root} is no run of virtual clients: their images are not at hand")
        virtual = cls(run.config, run.workspace, run.device, public)
        virtual.uploads = run.uploads
        return virtual

    @classmethod
    def reopen(cls, folder: Path, device: torch.device | None = None) -> Self:
        """As `Run.reopen`.

        Raises
        ------
        ConfigError: the folder is no workspace of a run, or a client is not virtual.
        """
        return cls.from_run(Run.reopen(folder, device))

    def sharing_uploads(self, config: Config) -> Self:
        """A run with the same uploads and general models, by a config that names another workspace.

        Raises
        ------
        ConfigError: that workspace was made with another config.
        """
        other = type(self)(config, Workspace.open(config, read_versions()), self.device, self.public)
        for name in SHARED:
            here, there = self.workspace.root / name, other.workspace.root / name
            if here.exists() and not there.exists():
                there.symlink_to(here.resolve())
        return other

    @cached_property
    def train(self) -> dict[str, LabeledImages]:
        """Client -> its training images of the run's classes, labels in `class_names`; in the order of `uploads`."""
        return self._load("train")

    @cached_property
    def test(self) -> dict[str, LabeledImages]:
        """Client -> its test images, likewise."""
        return self._load("test")

    def _load(self, split: str) -> dict[str, LabeledImages]:
        aliases = parse_aliases(self.config.clients.class_aliases)
        images = {}
        for upload, index in zip(self.uploads, _find_indices(self), strict=True):
            data = virtual_data(upload.client, index, self.config)
            part: LabeledView = getattr(data, split)
            labels = find_indices(data.class_names, self.class_names, aliases)[part.labels]
            # A class that was left out of the run is in no method's reach.
            images[upload.client] = part.with_labels(labels).read()
        return images

    def measure(self, model: torch.nn.Module, test: dict[str, LabeledImages] | None = None) -> Accuracies:
        """Client -> accuracy in [0, 1] of one model of `class_names` on its test images, or on those of `test`."""
        tests = (test or self.test).items()
        return Accuracies.of(
            {client: (predict(model, self.preprocess, images.images), images.labels) for client, images in tests}
        )

    def measure_classifier(
        self,
        classifier: Classifier,
        clients: Collection[str] = (),
        tests: Mapping[str, LabeledImages] | None = None,
    ) -> Accuracies:
        """The same of a model with class names of its own, which are matched by name; what it takes for a class that
        the run lacks counts as wrong.

        clients: whose test images it reads, if not all. tests: client -> images in place of its test images.
        """
        there = len(self.class_names)
        columns = find_indices(
            classifier.class_names, self.class_names, parse_aliases(self.config.clients.class_aliases)
        )
        columns = columns.where(columns >= 0, there + torch.arange(len(columns)))
        network, read = classifier.network.to(self.device), {}
        for client, images in (tests or self.test).items():
            if clients and client not in clients:
                continue
            local = predict(network, classifier.preprocessing, images.images)
            spread = local.new_zeros(len(local), there + len(columns))
            read[client] = spread.index_add_(1, columns, local), images.labels
        return Accuracies.of(read)
