"""Unguided general images: generated from the classes' names alone, in batches that processes share out."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.datasets.labeled_images import LabeledImages
from common.devices import count_workers
from common.storage.atomic import write_json
from common.storage.tensors import read_tensors, write_tensors
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.events import Progress
from fedlmg_server.run import Run
from fedlmg_server.synthesis import launch
from fedlmg_server.synthesis.generate import generate_batch, to_pixels
from fedlmg_server.synthesis.plan import PlannedImage, plan_images, split_into_batches
from fedlmg_server.synthesis.store import finishing
from fedlmg_server.synthesis.within_memory import WithinMemory

MODULE = "fedlmg_server.general.worker"
STAGE = "general images"
CHEAPER = 4
"""Unguided images that take about as long as a guided one."""
FILE = "plan.json"
OWNER = "general"
"""Stands for a client's name in the seeds of the images."""


def load_unguided_images(run: Run, class_names: list[str]) -> LabeledImages:
    """Class-balanced images of the run's size, labels in `class_names`, as many as the config asks for; what is missing
    is generated first, on all of this machine's GPUs or cores.

    Raises
    ------
    ConfigError: the diffusion model cannot be opened or does not know a class.
    RuntimeError: a process failed.
    """
    plan = Plan(run, class_names)
    if not plan.is_complete():
        plan.keep()
        plan.generate()
    parts = [read_tensors(plan.file(number))[0] for number in range(len(plan.batches))]
    images = run.preprocess.resize(torch.cat([part["images"] for part in parts]))
    return LabeledImages(images, torch.cat([part["labels"] for part in parts]))


class Plan:
    """Which images there will be, and the files of those that are there: one for each batch, written as a whole.

    A plan that was begun keeps its number of images, whoever joins the run later.
    """

    def __init__(self, run: Run, class_names: list[str]) -> None:
        self.run, self.class_names = run, class_names
        key = hashlib.sha256(json.dumps(class_names).encode()).hexdigest()[:16]
        self.folder = run.workspace.general / "unguided" / key
        self.per_class = _read(self.folder)["per_class"] if (self.folder / FILE).exists() else self._choose_number()
        planned = plan_images(run.config.seed, OWNER, class_names, self.per_class)
        self.batches = split_into_batches(planned, run.config.synthesis.synthesis_batch_size)

    def _choose_number(self) -> int:
        """Images of each class."""
        config = self.run.config
        number = max(1, config.general.most_images("unguided") // len(self.class_names))
        if config.general.num_general_images:
            return number
        # A large diffusion model takes seconds for an image: unguided ones must not cost more than guided ones.
        return min(number, CHEAPER * config.synthesis.images_per_class * config.clients.num_clients)

    @classmethod
    def of_folder(cls, run: Run, folder: Path) -> "Plan":
        return cls(run, _read(folder)["class_names"])

    def keep(self) -> None:
        """Write it into its folder."""
        write_json(self.folder / FILE, {"class_names": self.class_names, "per_class": self.per_class})

    def file(self, number: int) -> Path:
        return self.folder / f"batch-{number:05}.safetensors"

    def is_complete(self) -> bool:
        return all(self.file(number).exists() for number in range(len(self.batches)))

    def count_images(self) -> int:
        return sum(len(batch) for number, batch in enumerate(self.batches) if self.file(number).exists())

    def generate(self) -> None:
        """Generate the missing batches by other processes."""
        workspace, total = self.run.workspace, sum(map(len, self.batches))
        processes = count_workers(len(self.batches))

        def on_progress(completed: int) -> None:
            workspace.log(Progress(stage=STAGE, completed=completed, total=total, unit="images"))

        with workspace.stage(STAGE) as work:
            before = self.count_images()
            command = [MODULE, str(workspace.root), str(self.folder)]
            with launch.running(workspace, command, "general-images", processes) as workers:
                workers.wait(self.is_complete, self.count_images, on_progress)
            work.images = self.count_images() - before

    def work(self, backend: DiffusionBackend, rank: int, world_size: int) -> None:
        """Generate what is missing of every `world_size`-th batch, from number `rank`."""
        generate = WithinMemory(partial(self._generate, backend), backend)
        for number in range(rank, len(self.batches), world_size):
            if self.file(number).exists():
                continue
            batch = self.batches[number]
            images = generate(batch)
            labels = torch.tensor([self.class_names.index(image.class_name) for image in batch])
            with finishing():
                write_tensors(self.file(number), {"images": to_pixels(images), "labels": labels})

    def _generate(self, backend: DiffusionBackend, part: list[PlannedImage]) -> torch.Tensor:
        return generate_batch(backend, None, part, self.class_names, self.run.config.synthesis)


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text(encoding="utf-8"))
