"""Which images to draw: seeds for each client and class, in batches whose make-up depends on the plan alone."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from common.config.synthesis import SynthesisConfig
from common.names import safe_name


@dataclass(frozen=True)
class Drawing:
    """One image to draw; its seed gives its initial noise."""

    class_name: str
    seed: int

    @property
    def file(self) -> str:
        """Its name below a client's synthetic folder."""
        return f"{safe_name(self.class_name)}/{self.seed}.png"

    def path(self, folder: Path) -> Path:
        return folder / self.file


def image_seed(run_seed: int, client: str, class_name: str, index: int) -> int:
    """Seed of image `index` of a class, below 2**48; the same for the guided image and its prompts-only rival."""
    key = f"{run_seed}/{client}/{class_name}/{index}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6])


def drawings(run_seed: int, client: str, class_names: list[str], images_per_class: int) -> list[Drawing]:
    """A client's images, classes in turn, so that every stretch of them is class-balanced."""
    return [
        Drawing(name, image_seed(run_seed, client, name, index))
        for index in range(images_per_class)
        for name in class_names
    ]


def num_batches(class_names: list[str], config: SynthesisConfig) -> int:
    """That a client's plan is drawn in."""
    return math.ceil(len(class_names) * config.images_per_class / config.synthesis_batch_size)


def batches(planned: list[Drawing], batch_size: int) -> list[list[Drawing]]:
    """The plan in as few batches as `batch_size` allows, of one size; a batch is drawn whole, so that interruption
    changes no image."""
    size = math.ceil(len(planned) / math.ceil(len(planned) / batch_size))
    return [planned[start : start + size] for start in range(0, len(planned), size)]


def is_drawn(batch: list[Drawing], folder: Path) -> bool:
    return all(drawing.path(folder).exists() for drawing in batch)
