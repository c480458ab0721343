"""Whether synthetic images are copies: each one's nearest training image, against how near unseen images come anyway.

Runs on the client's machine, against its own images, which nobody else has.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from common.datasets.labeled_images import LabeledImages
from common.datasets.readers.image_files import ImageError, is_image, read_image
from common.storage.atomic import write_bytes
from common.vision.preprocessing import PreprocessSpec

NEAR_SHARE = 0.01
"""Share of unseen images that come as near to a training image as what counts as a copy."""
PAIRS, TILE = 10, 64
CHUNK = 256


@dataclass(frozen=True)
class CopyReport:
    """copies: synthetic images as near to a training image as the nearest 1 % of the unseen ones are, or nearer."""

    synthetic: int
    copies: int
    pairs: list[tuple[int, int]]
    """Rows of the nearest pairs, synthetic and training image, nearest first."""

    def sentence(self) -> str:
        share = self.copies / max(1, self.synthetic)
        verdict = "no sign of copying" if share <= 2 * NEAR_SHARE else "look at the pairs: some may be copies"
        return (
            f"{self.copies} of {self.synthetic} synthetic images ({share:.1%}) are as near to a training image as the "
            f"nearest 1 % of unseen images are: {verdict}"
        )


def compare(synthetic: torch.Tensor, members: LabeledImages, unseen: LabeledImages) -> CopyReport:
    """synthetic: uint8 (N, 3, h, w), of the size of the others.

    Raises
    ------
    ValueError: no image on one of the three sides.
    """
    for name, images in (("synthetic", synthetic), ("training", members.images), ("held-out", unseen.images)):
        if not len(images):
            raise ValueError(f"there are no {name} images to compare")
    distances, rows = nearest(synthetic, members.images)
    bound = nearest(unseen.images, members.images)[0].quantile(NEAR_SHARE)
    order = distances.argsort()[:PAIRS].tolist()
    return CopyReport(len(synthetic), int((distances <= bound).sum()), [(row, int(rows[row])) for row in order])


def nearest(images: torch.Tensor, members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to the nearest member, root mean square of pixel differences in [0, 1], (N,); and its row, (N,)."""
    known = members.flatten(1).float() / 255
    distances, rows = [], []
    for part in images.split(CHUNK):
        asked = part.flatten(1).float() / 255
        rows.append(torch.cdist(asked, known).argmin(1))
        # Anew, for cdist rounds: a copy is at 0.
        distances.append((asked - known[rows[-1]]).square().mean(1).sqrt())
    return torch.cat(distances), torch.cat(rows)


def read_folder(folder: Path, size: int) -> torch.Tensor:
    """Every image below a folder, uint8 (N, 3, size, size).

    Raises
    ------
    ValueError: there is none.
    """
    images = list(_images(folder, size))
    if not images:
        raise ValueError(f"no image can be read below {folder}")
    return torch.stack(images)


def _images(folder: Path, size: int) -> Iterator[torch.Tensor]:
    resize = PreprocessSpec(size).resize
    for path in sorted(filter(is_image, folder.rglob("*"))):
        try:
            yield resize(read_image(path)[None])[0]
        except ImageError:
            continue


def save_pairs(path: Path, report: CopyReport, synthetic: torch.Tensor, members: torch.Tensor) -> None:
    """A picture: synthetic images above, the training images nearest to them below, nearest on the left."""
    canvas = Image.new("RGB", (TILE * len(report.pairs), 2 * TILE))
    for column, rows in enumerate(report.pairs):
        for line, (images, row) in enumerate(zip((synthetic, members), rows, strict=True)):
            picture = Image.fromarray(images[row].permute(1, 2, 0).numpy())
            canvas.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (column * TILE, line * TILE))
    buffer = io.BytesIO()
    canvas.save(buffer, "png")
    write_bytes(path, buffer.getvalue())
