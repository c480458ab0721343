"""Copy check: whether synthetic images come closer to training images than held-out images do.

The check runs on the client's machine, because only the client has its images.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from common.datasets.readers.image_files import ImageError, read_image
from common.datasets.readers.tree import list_images
from common.storage.atomic import write_bytes
from common.storage.images import Images, ImageView
from common.vision.preprocessing import PreprocessSpec

NEAR_SHARE = 0.01
"""A synthetic image counts as a copy if it is as near to a training image as the nearest 1 % of held-out images."""
PAIRS, TILE = 10, 64
CHUNK = 256


@dataclass(frozen=True)
class CopyReport:
    """The result of a copy check; `synthetic` counts all synthetic images, `copies` those that count as copies."""

    synthetic: int
    copies: int
    pairs: list[tuple[int, int]]
    """Rows of the nearest pairs (synthetic image, training image), nearest pair first."""

    def describe(self) -> str:
        """One sentence for the owner of the training images."""
        share = self.copies / max(1, self.synthetic)
        finding = (
            "no sign of copying" if share <= 2 * NEAR_SHARE else "some may be copies, so look at the nearest pairs"
        )
        return (
            f"{self.copies} of {self.synthetic} synthetic images ({share:.1%}) are as near to a training image as the "
            f"nearest 1 % of held-out images: {finding}"
        )


def compare(synthetic: torch.Tensor, members: ImageView, unseen: ImageView) -> CopyReport:
    """Check synthetic images, uint8 (N, 3, h, w), against training images and held-out images of the same size.

    Raises
    ------
    ValueError: there are no synthetic, no training or no held-out images.
    """
    for name, images in (("synthetic", synthetic), ("training", members), ("held-out", unseen)):
        if not len(images):
            raise ValueError(f"a copy check needs synthetic, training and held-out images, but found no {name} images")
    distances, rows = find_nearest(synthetic, members)
    bound = find_nearest(unseen, members)[0].quantile(NEAR_SHARE)
    order = distances.argsort()[:PAIRS].tolist()
    return CopyReport(len(synthetic), int((distances <= bound).sum()), [(row, int(rows[row])) for row in order])


def find_nearest(images: Images, members: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance (N,) from each image to the nearest of `members`, and the row (N,) of that member.

    Both inputs are uint8 (N, 3, h, w), at least one image each. A distance is the root mean square of the differences
    of pixels, in [0, 1].
    """
    known = ImageView.of(members)
    found = [_find_nearest(asked.flatten(1).float() / 255, known) for asked in ImageView.of(images).split(CHUNK)]
    distances, rows = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(rows)


def _find_nearest(asked: torch.Tensor, members: ImageView) -> tuple[torch.Tensor, torch.Tensor]:
    rounded = torch.full((len(asked),), torch.inf)
    distances, rows = torch.empty(len(asked)), torch.empty(len(asked), dtype=torch.int64)
    for start, part in zip(range(0, len(members), CHUNK), members.split(CHUNK), strict=True):
        known = part.flatten(1).float() / 255
        nearest = torch.cdist(asked, known).min(1)
        nearer = nearest.values < rounded
        rounded[nearer], rows[nearer] = nearest.values[nearer], start + nearest.indices[nearer]
        # cdist rounds, but the distance to an exact copy must be 0, so it is computed again.
        distances[nearer] = (asked - known[nearest.indices])[nearer].square().mean(1).sqrt()
    return distances, rows


def read_folder(folder: Path, size: int) -> torch.Tensor:
    """Read every image below a folder, uint8 (N, 3, size, size).

    Raises
    ------
    ValueError: no image can be read.
    """
    images = list(_images(folder, size))
    if not images:
        raise ValueError(f"no image can be read below {folder}: name the folder that holds the synthetic images")
    return torch.stack(images)


def _images(folder: Path, size: int) -> Iterator[torch.Tensor]:
    resize = PreprocessSpec(size).resize
    for path in list_images(folder, {}):
        try:
            yield resize(read_image(path)[None])[0]
        except ImageError:
            continue


def save_pairs(path: Path, report: CopyReport, synthetic: torch.Tensor, members: ImageView) -> None:
    """Write a picture of the nearest pairs: synthetic images above training images, the nearest pair on the left."""
    canvas = Image.new("RGB", (TILE * len(report.pairs), 2 * TILE))
    for column, rows in enumerate(report.pairs):
        for line, (images, row) in enumerate(zip((ImageView.of(synthetic), members), rows, strict=True)):
            picture = Image.fromarray(images.choose(torch.tensor([row])).read()[0].permute(1, 2, 0).numpy())
            canvas.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (column * TILE, line * TILE))
    buffer = io.BytesIO()
    canvas.save(buffer, "png")
    write_bytes(path, buffer.getvalue())
