"""What a synthesis will cost, before it starts: images, bytes, and hours by a short timed probe on this machine."""

import time
from dataclasses import dataclass

import torch

from common import manifest
from common.config import Config
from common.upload import Upload, is_whole
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.run import Run
from fedlmg_server.synthesis import plan
from fedlmg_server.synthesis.generate import generate_batch, guide_by
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.launch import num_processes
from fedlmg_server.synthesis.within_memory import WithinMemory

PROBE_IMAGES = 8
"""Images that are generated at once and timed, after one that warms up."""


@dataclass(frozen=True)
class Estimate:
    num_images: int
    megabytes: float
    """Of the images as pixels, in MB (10**6 bytes): PNG files are smaller."""
    seconds: float
    """On all processes of this machine, guided images alone."""
    processes: int

    def sentence(self) -> str:
        size, time = f"at most {self.megabytes:.0f} MB", tell_time(self.seconds)
        return f"{self.num_images} guided images: about {time} on {tell_processes(self.processes)}, {size}"


def tell_time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} s"


def tell_processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def count_planned_images(run: Run) -> int:
    """As `Run.num_images`, by the uploads' manifests alone: no weights are read."""
    num_classes, left_out = 0, run.workspace.class_notes.left_out
    for folder in filter(is_whole, run.workspace.uploads.iterdir()):
        num_classes += len(set(manifest.read(folder).held_class_names) - left_out.get(folder.name, {}).keys())
    return run.config.synthesis.images_per_class * num_classes


def estimate_cost(run: Run) -> Estimate:
    """As `time_probe`, with the diffusion model that the config names, on all processes of this machine."""
    if run.device.type == "cpu":
        torch.set_num_threads(1)
    # Diffusers is for the processes that generate: the server that waits for clients does without.
    from fedlmg_server.diffusion import opening

    backend = opening.load_backend(run.config.synthesis, run.device)
    return time_probe(backend, run, run.uploads[0], run.num_images, num_processes(run))


def time_probe(backend: DiffusionBackend, run: Run, upload: Upload, total: int, processes: int) -> Estimate:
    """Time a few guided images of one client, of `total` in all; nothing is kept.

    The processes generate side by side as fast as one alone, as they do on a GPU or a core each.
    """
    guidance = guide_by(upload, run.config.synthesis, backend.device)
    seconds, size = time_images(backend, guidance, run.config, upload.held_class_names, upload.class_names)
    return Estimate(total, total * size / 1e6, total * seconds / processes, processes)


def time_images(
    backend: DiffusionBackend,
    guidance: ClassifierGuidance,
    config: Config,
    drawn: list[str],
    class_names: list[str] | None = None,
) -> tuple[float, int]:
    """Seconds for one guided image, and its bytes as pixels; nothing is kept.

    drawn: classes of the images. class_names: all that the classifier knows; None: these.
    """
    settings, names = config.synthesis, class_names or drawn
    generate = WithinMemory(lambda batch: generate_batch(backend, guidance, batch, names, settings), backend)
    per_class = -(-PROBE_IMAGES // len(drawn))
    batch = plan.plan_images(config.seed, "", drawn, per_class)[:PROBE_IMAGES]
    generate(batch if settings.compile else batch[:1])
    started = time.monotonic()
    images = generate(batch).cpu()
    return (time.monotonic() - started) / len(batch), images[0].numel()
