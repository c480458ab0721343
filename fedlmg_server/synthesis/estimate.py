"""What a synthesis will cost, before it starts: images, bytes, and hours by a short timed probe on this machine."""

import json
import time
from dataclasses import dataclass

import torch

from common.config import Config
from common.upload import Upload, is_whole
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.synthesis import plan
from fedlmg_server.synthesis.draw import WithinMemory, draw_batch, guidance_by
from fedlmg_server.synthesis.launch import num_processes
from fedlmg_server.workspace import Workspace

PROBE_IMAGES = 8
"""Drawn at once and timed, after one that warms up."""


@dataclass(frozen=True)
class Estimate:
    num_images: int
    megabytes: float
    """Of the images as pixels, in MB (10**6 bytes): PNG files are smaller."""
    seconds: float
    """On all processes of this machine, guided images alone."""
    processes: int

    def sentence(self) -> str:
        long = self.seconds >= 3600
        seconds = f"{self.seconds / 3600:.1f} hours" if long else f"{self.seconds:.0f} s"
        size = f"at most {self.megabytes:.0f} MB"
        return f"{self.num_images} guided images: about {seconds} on {self.processes} processes, {size}"


def num_images(config: Config, uploads: list[Upload]) -> int:
    """Images that the plan asks for."""
    return config.synthesis.images_per_class * sum(len(upload.class_names) for upload in uploads)


def num_images_in(workspace: Workspace, config: Config) -> int:
    """The same of a workspace's uploads, by their manifests alone."""
    manifests = (folder / "manifest.json" for folder in workspace.uploads.iterdir() if is_whole(folder))
    num_classes = sum(len(json.loads(manifest.read_text())["class_names"]) for manifest in manifests)
    return config.synthesis.images_per_class * num_classes


def measure(config: Config, uploads: list[Upload], device: torch.device) -> Estimate:
    """As `probe`, with the diffusion model that the config names, on all processes of this machine."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    # Diffusers is for the processes that draw: the server that waits for clients does without.
    from fedlmg_server.diffusion import families

    backend = families.load_backend(config.synthesis, device)
    return probe(backend, config, uploads[0], num_images(config, uploads), num_processes(config, uploads))


def probe(backend: DiffusionBackend, config: Config, upload: Upload, total: int, processes: int) -> Estimate:
    """Time a few guided images of one client, of `total` in all; nothing is kept.

    The processes draw side by side as fast as one alone, as they do on a GPU or a core each.
    """
    guidance = guidance_by(upload, config.synthesis, backend.device)
    draw = WithinMemory(lambda batch: draw_batch(backend, guidance, batch, upload.class_names, config.synthesis))
    rounds = -(-PROBE_IMAGES // len(upload.class_names))
    batch = plan.drawings(config.seed, upload.client, upload.class_names, rounds)[:PROBE_IMAGES]
    draw(batch if config.synthesis.compile else batch[:1])
    started = time.monotonic()
    images = draw(batch).cpu()
    seconds = (time.monotonic() - started) / len(batch)
    return Estimate(total, total * images[0].numel() / 1e6, total * seconds / processes, processes)
