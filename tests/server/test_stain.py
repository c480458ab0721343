"""The baseline that matches the stain of test images to that of the public ones."""

from pathlib import Path

import pytest
import torch

from fedlmg_server.baselines import compare, methods, stain
from fedlmg_server.baselines.outcome import DoesNotApply
from tests.server.tiny_federation import trained, warm_run


def draw_cells(seed: int, tint: list[float]) -> torch.Tensor:
    """Smooth random pictures, uint8 (6, 3, 16, 16), in one tint."""
    coarse = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    light = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear") * 0.5 + 0.3
    return (light ** torch.tensor(tint).view(1, 3, 1, 1) * 255).to(torch.uint8)


def test_an_image_in_another_stain_gets_that_of_the_public_images():
    purple, yellow = draw_cells(0, [0.8, 1.6, 0.7]), draw_cells(1, [0.7, 0.8, 1.8])

    normalised = stain.normalise(yellow, purple)

    def channels(images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((0, 2, 3))

    assert (channels(yellow) - channels(purple)).abs().max() > 30
    assert (channels(normalised) - channels(purple)).abs().max() < 6


def test_public_images_stay_as_they_are():
    one = draw_cells(0, [0.8, 1.6, 0.7])[:1]

    assert (stain.normalise(one, one).int() - one.int()).abs().max() <= 2


def test_a_single_colour_gives_finite_pixels():
    flat = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

    assert stain.normalise(flat, draw_cells(0, [1.0, 1.0, 1.0])).shape == flat.shape


def test_runs_of_microscopes_have_the_row_and_others_do_not(uploads, tmp_path: Path):
    cells, digits = (
        warm_run(uploads, tmp_path / looks, trained("general", seed=2), looks=looks)
        for looks in ("microscopy", "digits")
    )

    assert "general-stain-normalised" in compare.measure_general(cells)
    assert methods.measure_method("general-stain-normalised", cells).per_client.keys() == {"a", "b"}
    assert list(compare.measure_general(digits)) == ["general"]
    with pytest.raises(DoesNotApply, match="set 'looks' to 'microscopy'"):
        stain.measure(digits)
