"""Sharpness and spread of looks are those of the images."""

import torch
from torchvision.transforms.v2.functional import gaussian_blur

from fedlmg_server.evaluation.appearance import sharpness, spread_of_looks

NOISE = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_one_colour_is_not_sharp_and_stripes_are():
    stripes = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    stripes[..., ::2] = 255

    assert sharpness(torch.full((1, 3, 16, 16), 7, dtype=torch.uint8)) == 0
    assert sharpness(stripes) == 0.5


def test_blurred_images_are_less_sharp():
    assert sharpness(gaussian_blur(NOISE, [5, 5])) < sharpness(NOISE) / 2


def test_looks_spread_as_mean_colours_do():
    shades = torch.stack([torch.full((3, 16, 16), shade, dtype=torch.uint8) for shade in (0, 255)])

    assert spread_of_looks(shades) > 0.7
    assert spread_of_looks(NOISE) < 0.03
