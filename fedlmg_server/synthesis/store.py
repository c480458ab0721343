"""The synthetic images of a run on the disk: which are planned, which are there, how a batch is written."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch
from torchvision.transforms.v2.functional import to_pil_image

from common.storage.atomic import write_bytes
from common.upload import Upload
from fedlmg_server.run import Run
from fedlmg_server.synthesis import scores
from fedlmg_server.synthesis.plan import PlannedImage, plan_images
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.workspace import Workspace


def planned_images(run: Run, upload: Upload) -> list[PlannedImage]:
    """The images of one client, in the plan's order."""
    return plan_images(run.config.seed, upload.client, upload.held_class_names, run.config.synthesis.images_per_class)


def are_saved(images: list[PlannedImage], folder: Path) -> bool:
    return all(image.path(folder).exists() for image in images)


def is_complete(run: Run, method: str) -> bool:
    """Whether every planned image of every client is there."""
    return all(are_saved(planned_images(run, upload), run.image_folder(upload, method)) for upload in run.uploads)


def count_images(workspace: Workspace, method: str = "fedlmg") -> int:
    """Images of the method in the workspace."""
    return len(_list_images(workspace, method))


def remove_unplanned(run: Run, method: str) -> None:
    """Remove images of clients that left, of classes that are spelt otherwise since another client came or went, and
    images that lost their score in a power cut."""
    planned = {
        image.path(run.image_folder(upload, method)) for upload in run.uploads for image in planned_images(run, upload)
    }
    there = _list_images(run.workspace, method)
    scored = {folder / file for folder in {path.parents[1] for path in there} for file in scores.read_scores(folder)}
    for path in there:
        if path not in planned or path not in scored:
            path.unlink()


def _list_images(workspace: Workspace, method: str) -> list[Path]:
    return list(workspace.synthetic("any", method).parent.glob("*/*/[!.]*.png"))


def save_batch(
    folder: Path,
    scores_file: Path,
    batch: list[PlannedImage],
    pixels: torch.Tensor,  # uint8 (B, 3, h, w)
    found: list[Score],
) -> None:
    """Write a batch: first the scores, then the images, so that an image on the disk always has its score."""
    folder.mkdir(parents=True, exist_ok=True)
    scores.append_scores(scores_file, found)
    for image, values in zip(batch, pixels.cpu(), strict=True):
        buffer = BytesIO()
        to_pil_image(values).save(buffer, "png")
        write_bytes(image.path(folder), buffer.getvalue())


@contextmanager
def finishing() -> Iterator[None]:
    """A polite kill waits for the end of the block, so that what is being written is whole."""
    arrived = []
    # A mask would not do: it holds for one thread, and the signal comes to any.
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if arrived:
        signal.raise_signal(signal.SIGTERM)
