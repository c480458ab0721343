"""On a processor, large images are drawn in parts as large as the free memory holds."""

import time

import pytest
import torch

from fedlmg_server.synthesis import processor_memory
from fedlmg_server.synthesis.plan import PlannedImage, plan_images
from fedlmg_server.synthesis.within_memory import WithinMemory

MEGABYTES = 40
"""That an image takes while it is drawn."""
PLANNED = plan_images(0, "site-a", ["cat", "dog"], 10)


class Backend:
    """Of a diffusion model only what decides how many images are drawn at once."""

    device = torch.device("cpu")

    def __init__(self, pixels: int):
        self.pixels = pixels


def draw(pixels: int, megabytes_free: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images are drawn at once, part by part, by one process."""
    monkeypatch.setattr(processor_memory, "measure_free_memory", lambda device: megabytes_free * 10**6)
    monkeypatch.setattr(processor_memory, "num_processors", lambda: 1)
    sizes = []

    def generate(part: list[PlannedImage]) -> torch.Tensor:
        sizes.append(len(part))
        activations = torch.ones(len(part), MEGABYTES * 10**6 // 4)
        time.sleep(5 * processor_memory.POLL_SECONDS)
        return torch.zeros(len(activations), 3, 1, 1)

    images = WithinMemory(generate, Backend(pixels))(PLANNED)
    assert len(images) == len(PLANNED)
    return sizes


def test_large_images_are_drawn_in_parts_that_grow_to_what_the_memory_holds(monkeypatch: pytest.MonkeyPatch):
    first, second, *others = draw(512, 500, monkeypatch)

    # Of 500 MB seven tenths are used, which hold eight images of 40 MB.
    assert (first, second) == (1, 4)
    assert 4 <= max(others) <= 8


def test_large_images_are_drawn_one_by_one_where_the_memory_holds_no_two(monkeypatch: pytest.MonkeyPatch):
    assert draw(512, 60, monkeypatch) == [1] * len(PLANNED)


def test_small_images_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch):
    assert draw(32, 60, monkeypatch) == [len(PLANNED)]
