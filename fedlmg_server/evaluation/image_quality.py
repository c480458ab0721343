"""How good a finished run's synthetic images are, by client and class, against real images that nobody was trained on.

Three sets are measured alike: the guided images, the same without guidance, and as the yardstick other real images.
The evaluation classifier is trained on all clients' real training images, so this is for virtual clients only.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from common.datasets.labeled_images import LabeledImages
from common.labels.maps import to_global_indices
from common.storage.atomic import write_bytes
from common.storage.images import ImageView
from common.upload import Upload
from common.vision.metrics import accuracy, predict
from fedlmg_server.baselines import centralised
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.evaluation import evaluation_classifier
from fedlmg_server.evaluation.evaluation_classifier import NEAREST, EvaluationClassifier
from fedlmg_server.report.markdown import Column, as_csv, table
from fedlmg_server.synthesis.guidance import ClassifierGuidance

CLASSIFIER_EPOCHS = 60
"""The clients' images together are few."""
REAL = "real"
METHODS = {"fedlmg": "guided", "prompts-only": "unguided"}
"""Folders of synthetic images, and what they are called here."""
ALL = "all"


@dataclass(frozen=True)
class Measured:
    """Of one set of images; None where there are too few for surroundings."""

    seed: int
    images: str
    """`guided`, `unguided` or `real`."""
    client: str
    class_name: str
    """`all`, or one class."""
    num_images: int
    read_as_asked: float
    """Share that the evaluation classifier reads as the class asked for, in [0, 1]."""
    confidence: float
    """The client's own classifier's probability of that class, mean, in [0, 1]."""
    statistics_gap: float
    """Statistics loss (paper, Eq. 7) to the client's upload, mean over the images; 0 where it uploaded none."""
    kid: float | None = None
    """Kernel distance to the client's held-out images in the evaluation classifier's features."""
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None


def measure(run: VirtualRun) -> Iterator[Measured]:
    """Every client's rows, the client's whole first and then its classes."""
    training = centralised.pool_images(list(run.train.values()))
    by = evaluation_classifier.train(training, len(run.class_names), run.config.seed, CLASSIFIER_EPOCHS)
    generated = {name: _by_client(run, method) for method, name in METHODS.items()}
    for upload in run.uploads:
        test = run.test[upload.client]
        held_out = LabeledImages(test.images[::2], test.labels[::2])
        sets = {name: found[upload.client] for name, found in generated.items() if upload.client in found}
        sets[REAL] = LabeledImages(test.images[1::2], test.labels[1::2])
        for name, images in sets.items():
            yield from _compared(run, by, upload, name, held_out, images)


def _by_client(run: VirtualRun, method: str) -> dict[str, LabeledImages]:
    """Client -> the images that are learned from; nothing where the run has generated none."""
    if not all(run.image_folder(upload, method).is_dir() for upload in run.uploads):
        return {}
    found = read_synthetic_set(run, method)
    images = ImageView.of(found.images)
    rows = {client: torch.tensor([each == client for each in found.clients]) for client in dict.fromkeys(found.clients)}
    return {client: LabeledImages(images.choose(of).read(), found.labels[of]) for client, of in rows.items()}


def _compared(
    run: VirtualRun, by: EvaluationClassifier, upload: Upload, name: str, real: LabeledImages, generated: LabeledImages
) -> Iterator[Measured]:
    classes = to_global_indices(upload.class_names, run.class_names)
    local = torch.full((len(run.class_names),), -1)
    local[classes] = torch.arange(len(classes))
    targets = local[generated.labels]
    read = by.reads(generated.images)
    confidence = predict(upload.classifier(), upload.preprocess, generated.images)[torch.arange(len(targets)), targets]
    gaps = statistics_gaps(upload, generated.images, targets)
    of_real, of_generated = by.features(real.images), by.features(generated.images)
    parts = [(ALL, generated.labels >= 0, real.labels >= 0)]
    parts += [
        (class_name, generated.labels == number, real.labels == number)
        for class_name, number in zip(upload.class_names, classes.tolist(), strict=True)
    ]
    for class_name, rows, real_rows in parts:
        if not rows.any():
            continue
        distances: dict[str, Any] = {}
        if min(int(rows.sum()), int(real_rows.sum())) > NEAREST:
            features = of_real[real_rows], of_generated[rows]
            distances = {
                "kid": evaluation_classifier.kernel_distance(*features)[0],
                **asdict(evaluation_classifier.overlap(*features)),
            }
        yield Measured(
            seed=run.config.seed,
            images=name,
            client=upload.client,
            class_name=class_name,
            num_images=int(rows.sum()),
            read_as_asked=accuracy(read[rows], generated.labels[rows]),
            confidence=confidence[rows].mean().item(),
            statistics_gap=gaps[rows].mean().item(),
            **distances,
        )


@torch.no_grad()
def statistics_gaps(upload: Upload, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The statistics loss of each image uint8 (N, 3, h, w) against its class in the upload: float32 (N,).

    `targets` are the classes, int64 (N,). A class with several clusters is compared by the nearest one.
    """
    settings = {"classification_weight": 0.0, "statistics_weight": 1.0}
    guidance = ClassifierGuidance.of_upload(upload, torch.device("cpu"), **settings)
    if not guidance.has_statistics:
        return torch.zeros(len(images))
    found = []
    for part, asked in zip(images.split(256), targets.split(256), strict=True):
        clusters = [torch.full_like(asked, cluster) for cluster in range(guidance.num_clusters)]
        gaps = [guidance.statistics_only(asked, each)(part.float() / 255) for each in clusters]
        found.append(torch.stack(gaps).amin(0))
    return torch.cat(found)


COLUMNS = {
    "read as asked, %": Column("read_as_asked", 100, 1),
    "client's confidence, %": Column("confidence", 100, 1),
    "statistics gap": Column("statistics_gap", digits=1),
    "KID x 1000": Column("kid", 1000),
    "precision": Column("precision", digits=2),
    "recall": Column("recall", digits=2),
    "density": Column("density", digits=2),
    "coverage": Column("coverage", digits=2),
}


def markdown(rows: list[Measured]) -> str:
    """A line a client and set of images, all classes together, mean and standard deviation over the seeds."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for row in rows:
        if row.class_name == ALL:
            found.setdefault((row.client, row.images), []).append(row)
    lines = ([*names, *(column.cell(of) for column in COLUMNS.values())] for names, of in found.items())
    return table(["client", "images", *COLUMNS], lines)


def write(rows: list[Measured], out: Path) -> None:
    """`images.csv`, every class, and `images.md`, the clients."""
    write_bytes(out / "images.csv", as_csv(Measured, rows).encode())
    write_bytes(out / "images.md", markdown(rows).encode())
