"""What a client's classifier cost, how strong it became, and how good the images are that it guided.

A row a client of a finished run; runs that differ in `local-epochs` or `architectures` stand against each other. For
virtual clients only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.storage.atomic import write_bytes
from common.upload import Upload
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.evaluation import image_quality
from fedlmg_server.report.markdown import Column, as_csv, table

TRAINING_OVER_FORWARD = 3
"""A backward pass takes twice the operations of the forward one."""


@dataclass(frozen=True)
class Measured:
    """Accuracies and shares in [0, 1]."""

    seed: int
    client: str
    architecture: str
    epochs: int
    """Of local training; what follows is of it, too."""
    flops: int
    """Multiplications and additions, without validation."""
    seconds: float
    upload_bytes: int
    own_accuracy: float | None
    """The uploaded classifier on its client's test images."""
    num_images: int
    """That it guided and the student learns from; this and the next three as in `image_quality`."""
    read_as_asked: float
    kid: float | None
    coverage: float | None
    returned_accuracy: float
    """The model given back on the client's test images."""


def measure(run: VirtualRun) -> Iterator[Measured]:
    """A row a client; none of one whose guided images are not learned from."""
    returned = run.measure(load_model(run))
    uploads = {upload.client: upload for upload in run.uploads}
    for images in image_quality.measure(run):
        if (images.images, images.class_name) != (image_quality.METHODS["fedlmg"], image_quality.ALL):
            continue
        upload = uploads[images.client]
        training = upload.manifest.training
        yield Measured(
            seed=images.seed,
            client=upload.client,
            architecture=upload.manifest.architecture,
            epochs=len(training.history),
            flops=training_flops(upload),
            seconds=training.seconds,
            upload_bytes=upload.num_bytes,
            own_accuracy=training.test_accuracy_wire,
            num_images=images.num_images,
            read_as_asked=images.read_as_asked,
            kid=images.kid,
            coverage=images.coverage,
            returned_accuracy=returned[upload.client],
        )


def training_flops(upload: Upload) -> int:
    """Multiplications and additions of a client's training: of convolutions and matrix products alone."""
    size, training = upload.preprocess.image_size, upload.manifest.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        upload.classifier()(torch.zeros(1, 3, size, size))
    return TRAINING_OVER_FORWARD * counter.get_total_flops() * training.num_examples * len(training.history)


COLUMNS = {
    "GFLOP": Column("flops", 1e-9),
    "s": Column("seconds"),
    "kB up": Column("upload_bytes", 1e-3),
    "own test images, %": Column("own_accuracy", 100, 1),
    "images": Column("num_images"),
    "read as asked, %": Column("read_as_asked", 100, 1),
    "KID x 1000": Column("kid", 1000),
    "coverage": Column("coverage", digits=2),
    "model given back, %": Column("returned_accuracy", 100, 1),
}


def markdown(rows: list[Measured]) -> str:
    """A line a client, architecture and number of epochs, mean and standard deviation over the seeds."""
    found: dict[tuple[str, str, int], list[Measured]] = {}
    for row in rows:
        found.setdefault((row.client, row.architecture, row.epochs), []).append(row)
    lines = (
        [client, architecture, str(epochs), *(column.cell(of) for column in COLUMNS.values())]
        for (client, architecture, epochs), of in found.items()
    )
    return table(["client", "architecture", "epochs", *COLUMNS], lines)


def write(rows: list[Measured], out: Path) -> None:
    """`strength.csv` and `strength.md`."""
    write_bytes(out / "strength.csv", as_csv(Measured, rows).encode())
    write_bytes(out / "strength.md", markdown(rows).encode())
