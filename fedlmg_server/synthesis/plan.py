"""Which images to generate: seeds for each client and class, in batches whose make-up depends on the plan alone."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from common.config.synthesis import SynthesisConfig
from common.names import safe_name


@dataclass(frozen=True)
class PlannedImage:
    """One image to generate; its seed gives its initial noise."""

    class_name: str
    seed: int

    @property
    def file(self) -> str:
        """Its name below a client's synthetic folder."""
        return f"{safe_name(self.class_name)}/{self.seed}.png"

    def path(self, folder: Path) -> Path:
        return folder / self.file


def image_seed(run_seed: int, client: str, class_name: str, index: int) -> int:
    """Seed of image `index` of a class, below 2**48; the same for the guided and the prompts-only image."""
    # A name is printable, so no other name has what its slashes become: `a/b` of `c` is not `b/c` of `a`.
    client, class_name = (name.replace("/", "\0") for name in (client, class_name))
    key = f"{run_seed}/{client}/{class_name}/{index}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6])


def plan_images(run_seed: int, client: str, class_names: list[str], images_per_class: int) -> list[PlannedImage]:
    """A client's images, classes in turn, so that every stretch of them is class-balanced."""
    return [
        PlannedImage(name, image_seed(run_seed, client, name, index))
        for index in range(images_per_class)
        for name in class_names
    ]


def num_batches(class_names: list[str], config: SynthesisConfig) -> int:
    """Batches in which a client's plan is generated."""
    return math.ceil(len(class_names) * config.images_per_class / config.synthesis_batch_size)


def split_into_batches(planned: list[PlannedImage], batch_size: int) -> list[list[PlannedImage]]:
    """The plan in as few batches as `batch_size` allows, all of one size. A batch is generated as a whole, so that an
    interruption changes no image."""
    size = math.ceil(len(planned) / math.ceil(len(planned) / batch_size))
    return [planned[start : start + size] for start in range(0, len(planned), size)]
