"""How far each client can be trusted as a teacher, so that one badly trained or poisoned client does no harm (ours).

Honest clients of unlike domains read each other's images no better than chance, so no single measure may condemn one.
A client counts by its best measure: how it reads the others' synthetic images, how they read its own, and the
validation accuracy it reports. Only who is near chance by all of them is left out. A client that no other resembles
and that lies about its validation accuracy is not found out.
"""

import math
from dataclasses import asdict, dataclass
from statistics import median

import torch

from common.upload import Upload
from fedlmg_server.distillation.synthetic_set import SyntheticSet

NEAR_CHANCE, FULL_TRUST = 0.15, 0.3
"""Quality below which a client is left out, and from which it has full weight; measured on the embedded federation."""


@dataclass(frozen=True)
class Verdict:
    """Qualities: 0 is chance or worse, 1 is perfect; None where nothing could be measured."""

    quality: float | None
    """The best of the three below."""
    reads_others: float | None
    """Median over the other clients of how this one reads the images drawn for them, of classes that both know."""
    read_by_others: float | None
    """Median over the other clients of how they read the images drawn for this one."""
    validation: float | None
    """As the client reports it."""
    weight: float = 1.0
    """Of its vote in multi-teacher averages, in [0, 1]; at 0 its images and targets are left out."""
    reason: str = ""
    """Why its weight is not 1."""

    def to_json(self) -> dict:
        return asdict(self)


def judge(
    uploads: list[Upload], synthetic: SyntheticSet, per_client: dict[str, torch.Tensor], weighting: str
) -> dict[str, Verdict]:
    """Client -> verdict; per_client: each teacher's probabilities (N, classes) of the N synthetic images.

    With `weighting` `uniform`, or when nobody is clearly above chance, every weight is 1.
    """
    verdicts = {upload.client: _judge(upload, uploads, synthetic, per_client) for upload in uploads}
    if weighting == "uniform" or not any(verdict.weight for verdict in verdicts.values()):
        return {client: _trusted(verdict) for client, verdict in verdicts.items()}
    return verdicts


def above_chance(accuracy: float, num_classes: int, num_images: int | None = None) -> float:
    """Accuracy in [0, 1] as the share of the way from chance (0) to perfect (1).

    Of `num_images` images, less two standard errors of guessing, so that a few lucky ones prove nothing.
    """
    chance = 1 / max(num_classes, 2)
    luck = 2 * math.sqrt(chance * (1 - chance) / num_images) if num_images else 0.0
    return max(0.0, (accuracy - luck - chance) / (1 - chance))


def _judge(
    upload: Upload, uploads: list[Upload], synthetic: SyntheticSet, per_client: dict[str, torch.Tensor]
) -> Verdict:
    others = [other for other in uploads if other.client != upload.client]
    reads = _median(_reading(upload, other.client, synthetic, per_client) for other in others)
    read = _median(_reading(other, upload.client, synthetic, per_client) for other in others)
    reported = upload.manifest["training"]["validation_accuracy"]
    validation = None if reported is None else above_chance(reported, len(upload.class_names))
    quality = max((value for value in (reads, read, validation) if value is not None), default=None)
    verdict = Verdict(quality, reads, read, validation)
    if quality is None or quality >= FULL_TRUST:
        return verdict
    shown = [f"{name} {value:.2f}" for name, value in _measures(verdict).items() if value is not None]
    near = quality < NEAR_CHANCE
    reason = ("near chance by every measure" if near else "weak") + f" (0 is chance, 1 perfect): {', '.join(shown)}"
    return Verdict(quality, reads, read, validation, 0.0 if near else quality / FULL_TRUST, reason)


def _measures(verdict: Verdict) -> dict[str, float | None]:
    return {
        "reads others' images": verdict.reads_others,
        "others read its images": verdict.read_by_others,
        "its validation": verdict.validation,
    }


def _trusted(verdict: Verdict) -> Verdict:
    return Verdict(verdict.quality, verdict.reads_others, verdict.read_by_others, verdict.validation)


def _reading(reader: Upload, author: str, synthetic: SyntheticSet, per_client: dict[str, torch.Tensor]) -> float | None:
    """How far above chance a client reads another's images of the classes it knows; None without such images."""
    knows = {index for index, name in enumerate(synthetic.class_names) if name in reader.class_names}
    rows = [
        row
        for row, (client, label) in enumerate(zip(synthetic.clients, synthetic.labels.tolist(), strict=True))
        if client == author and label in knows
    ]
    if not rows:
        return None
    right = per_client[reader.client][rows].argmax(1) == synthetic.labels[rows]
    return above_chance(right.double().mean().item(), len(reader.class_names), len(rows))


def _median(values) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
