"""Where memory does not hold one image, it is drawn with less, and is the same image."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.synthesis.generate import generate_batch
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.plan import plan_images
from fedlmg_server.synthesis.within_memory import WithinMemory
from tests.server import tiny_flow, tiny_pipelines

NAMES = ["cat", "dog"]
PLANNED = plan_images(0, "site-a", NAMES, 1)
MOVES = {"default": ["cpu:0", "cpu:0", "cpu", "cpu:0", "cpu", "cpu"], "authors": [*["cpu:0"] * 5, "cpu"]}
"""Of the denoiser: to its device for noise editing, through which the gradient goes, for two steps, and away."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_pipelines.save("stable-diffusion-1", tmp_path_factory.mktemp("pipeline"))


def opened(folder: Path, preset: str = "default", **changes) -> tuple[LatentBackend, SynthesisConfig]:
    config = SynthesisConfig(diffusion_model=str(folder), preset=preset, **changes)
    config = replace(config, num_inference_steps=2, noise_editing_steps=1, guided_until=1.0)
    backend = opening.load_backend(config, torch.device("cpu"))
    assert isinstance(backend, LatentBackend)
    return backend, config


def draw(backend: LatentBackend, config: SynthesisConfig, guidance: ClassifierGuidance) -> tuple[torch.Tensor, int]:
    """Images, and the bytes that were kept for gradients."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        images = generate_batch(backend, guidance, PLANNED, NAMES, config)
    return images, sum(kept)


@pytest.mark.parametrize("preset", MOVES)
def test_checkpoints_keep_less_for_the_same_image(preset: str, folder: Path, guidance: ClassifierGuidance):
    backend, config = opened(folder, preset)
    images, kept = draw(backend, config, guidance)

    change = backend.save_memory()

    again, kept_again = draw(backend, config, guidance)
    assert change == "going on with gradients that compute activations twice"
    assert torch.equal(again, images)
    assert kept_again < 0.7 * kept


@pytest.mark.parametrize("preset", MOVES)
def test_denoiser_rests_while_images_are_decoded_unless_the_gradient_needs_it(
    preset: str, folder: Path, guidance: ClassifierGuidance, monkeypatch: pytest.MonkeyPatch
):
    backend, config = opened(folder, preset)
    images, _ = draw(backend, config, guidance)
    backend.device, backend.denoiser_rests, moves = torch.device("cpu", 0), True, []  # Not named as the resting place.
    monkeypatch.setattr(backend.denoiser, "to", lambda place: moves.append(str(place)))

    again, _ = draw(backend, config, guidance)

    assert torch.equal(again, images)
    assert moves == MOVES[preset]


def test_one_image_that_memory_does_not_hold_is_drawn_in_a_way_that_needs_less(
    folder: Path, guidance: ClassifierGuidance, capsys: pytest.CaptureFixture
):
    backend, config = opened(folder)
    asked = []

    def generate(part: list) -> torch.Tensor:
        asked.append(len(part))
        if len(part) > 1 or not backend.vae.decoder.gradient_checkpointing:
            raise torch.OutOfMemoryError
        return generate_batch(backend, guidance, part, NAMES, config)

    images = WithinMemory(generate, backend)(PLANNED)

    assert asked == [2, 1, 1, 1]
    assert len(images) == 2
    assert capsys.readouterr().out.splitlines() == [
        "out of memory with 2 images at once: going on with 1",
        "out of memory with 1 images at once: going on with gradients that compute activations twice",
    ]


def test_a_processor_s_memory_that_runs_out_halves_the_batch(folder: Path):
    backend, _ = opened(folder)
    asked = []

    def generate(part: list) -> torch.Tensor:
        asked.append(len(part))
        return torch.empty(len(part), 3, 1, 2**50 if len(part) > 1 else 1)  # More than any machine has.

    images = WithinMemory(generate, backend)(PLANNED)

    assert asked == [2, 1, 1]
    assert len(images) == 2


def test_a_fault_that_is_not_of_memory_is_told(folder: Path):
    backend, _ = opened(folder)

    def generate(part: list) -> torch.Tensor:
        return torch.zeros(1) @ torch.zeros(2)

    with pytest.raises(RuntimeError, match="size"):
        WithinMemory(generate, backend)(PLANNED)


def test_memory_that_holds_no_image_in_any_way_is_told(folder: Path):
    backend, _ = opened(folder)

    def generate(part: list) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        WithinMemory(generate, backend)(PLANNED)


def test_decoder_without_checkpoints_is_passed_over(tmp_path: Path):
    backend, _ = opened(tiny_flow.save("sana", tmp_path), diffusion_size=tiny_flow.SIZE)

    ways = [backend.save_memory() for _ in range(3)]

    assert ways == ["going on with gradients that compute activations twice", "", ""]
