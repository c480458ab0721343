"""What a synthesis will cost, before it starts: images, bytes, and hours by a short timed probe on this machine."""

import time
from dataclasses import dataclass

import torch

from common.config import Config
from common.upload import Upload
from fedlmg_server import plan
from fedlmg_server.synthesis.draw import draw_batch, guidance_by
from fedlmg_server.synthesis.launch import num_processes

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


def num_images(config: Config, uploads: list[Upload]) -> int:
    """Images that the plan asks for, without those drawn again."""
    return config.synthesis.images_per_class * sum(len(upload.class_names) for upload in uploads)


def measure(config: Config, uploads: list[Upload], device: torch.device) -> Estimate:
    """Time a few guided images of the first client; nothing is kept.

    The processes draw side by side as fast as one alone, as they do on a GPU or a core each.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)
    # Diffusers is for the processes that draw: the server that waits for clients does without.
    from fedlmg_server.diffusion import families

    backend = families.load(config.synthesis, device)
    upload = uploads[0]
    guidance = guidance_by(upload, config.synthesis, backend.device)
    rounds = -(-PROBE_IMAGES // len(upload.class_names))
    batch = plan.drawings(config.seed, upload.client, upload.class_names, rounds)[:PROBE_IMAGES]
    warm_up = batch if config.synthesis.compile else batch[:1]
    draw_batch(backend, guidance, warm_up, upload.class_names, config.synthesis)
    started = time.monotonic()
    images = draw_batch(backend, guidance, batch, upload.class_names, config.synthesis).cpu()
    seconds = (time.monotonic() - started) / len(batch)
    total = num_images(config, uploads)
    megabytes = total * images[0].numel() / 1e6
    processes = num_processes(config, uploads)
    return Estimate(total, megabytes, total * seconds / processes, processes)
