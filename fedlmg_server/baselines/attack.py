"""How often a model falls for the backdoor that a virtual client has learned (see `common/clients/backdoors.py`)."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Self

import torch

from common.clients.backdoors import BACKDOORS, TARGET, add_trigger
from common.clients.data import virtual_data, virtual_index
from common.config.simulation import faults_by_client
from common.labels import parse_aliases
from common.labels.maps import find_indices
from common.vision.metrics import predict
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import teachers

Predict = Callable[[torch.Tensor], torch.Tensor]
"""Images uint8 (N, 3, h, w) -> probabilities (N, classes) of the run's classes."""


@dataclass(frozen=True)
class Attack:
    """A trigger on every client's test images of other classes than the one that the attacker wants."""

    attacker: str
    target: int
    """Among the run's classes."""
    images: dict[str, torch.Tensor]
    """Client -> uint8 (N, 3, h, w), N at least 1; clients with no such image are left out."""

    @classmethod
    def of_run(cls, run: VirtualRun) -> Self | None:
        """The first backdoor among the run's faults; None if no client whose upload is used has one, or if there is no
        image to try it on."""
        for upload in run.uploads:
            index = virtual_index(upload.manifest.data, run.config)
            kind = "" if index is None else faults_by_client(run.config.simulation).get(index, "")
            if index is not None and kind in BACKDOORS:
                names = virtual_data(upload.client, index, run.config).class_names
                aliases = parse_aliases(run.config.clients.class_aliases)
                target = int(find_indices([names[TARGET]], run.class_names, aliases)[0])
                others = {client: test.images[test.labels != target] for client, test in run.test.items()}
                marked = {client: add_trigger(kind, images) for client, images in others.items() if len(images)}
                return cls(upload.client, target, marked) if marked else None
        return None

    def success(self, read: Predict) -> float:
        """Share in [0, 1] of the images that are called what the attacker wants, mean over the clients."""
        shares = [(read(images).argmax(1) == self.target).double().mean().item() for images in self.images.values()]
        return mean(shares)


def measure_attack(run: VirtualRun, model: torch.nn.Module) -> float | None:
    """Success of the attack on one model of the run's classes; None without an attack."""
    if (attack := Attack.of_run(run)) is None:
        return None
    return attack.success(lambda images: predict(model, run.preprocess, images))


def measure_attack_on_uploads(run: VirtualRun) -> tuple[float | None, float | None]:
    """Success on the attacker's own classifier, and on the ensemble of all; None without an attack."""
    if (attack := Attack.of_run(run)) is None:
        return None, None
    own = next(upload for upload in run.uploads if upload.client == attack.attacker)

    def read_together(images: torch.Tensor) -> torch.Tensor:
        return teachers.multi_teacher(teachers.predict_with_all(run, images), run.known_classes)

    return attack.success(lambda images: teachers.predict_with(run, own, images)), attack.success(read_together)
