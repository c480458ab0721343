"""Augmentation keeps what an image shows, its range and its seed."""

import pytest
import torch

from common.vision.augmentation import augment, vary_look
from common.vision.looks import PROFILES, make_mixing, move

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_varied_looks_stay_in_range_and_differ():
    varied = vary_look(IMAGES, seeded(1))

    assert 0 <= varied.min() < varied.max() <= 1
    assert not torch.allclose(varied, IMAGES, atol=0.05)


def test_varied_looks_follow_from_the_generator_alone():
    assert torch.equal(vary_look(IMAGES, seeded(1)), vary_look(IMAGES, seeded(1)))


def test_flat_image_stays_flat():
    varied = vary_look(torch.full((2, 3, 8, 8), 0.5), seeded(1))

    torch.testing.assert_close(varied, varied[:, :, :1, :1].expand_as(varied))


def test_a_batch_without_images_stays_empty():
    assert augment(torch.zeros(0, 3, 8, 8), torch.Generator()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("looks", ["none", "digits"])
def test_digits_of_a_client_are_shifted_and_never_mirrored(looks: str):
    assert torch.equal(move(IMAGES, looks, seeded(1)), augment(IMAGES, seeded(1)))


@pytest.mark.parametrize("looks", PROFILES)
def test_a_client_s_images_keep_their_colours(looks: str):
    colours = torch.rand(8, 3, 1, 1, generator=seeded(2))

    moved = move(colours.expand(8, 3, 16, 16), looks, seeded(1))

    torch.testing.assert_close(moved, colours.expand_as(moved))


@pytest.mark.parametrize(("looks", "corners"), [("digits", 1), ("photos", 2), ("microscopy", 4)])
def test_where_the_profile_mirrors_and_turns_so_are_a_client_s_images(looks: str, corners: int):
    """A bright left upper corner goes where mirroring and turning take it."""
    images = torch.zeros(64, 3, 16, 16)
    images[:, :, 2:6, 2:6] = 1

    moved = move(images, looks, seeded(1))

    quarters = torch.nn.functional.avg_pool2d(moved[:, 0], 8).flatten(1)
    assert len(quarters.argmax(1).unique()) == corners


def test_photographs_are_cropped_anywhere_and_nothing_new_comes_in():
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32)

    moved = move(ramp, "photos", seeded(1))

    widths = (moved.amax((1, 2, 3)) - moved.amin((1, 2, 3))).sort().values
    assert 0.5 < widths[0] < 0.75
    assert 0.9 < widths[-1] <= 1
    assert 0 <= moved.min() <= moved.max() <= 1


def test_micrographs_are_mixed_with_their_labels():
    """Images of one grey each, 0 or 1, of the class 0 or 1: the mixture's grey is its share of class 1."""
    labels = torch.tensor([0, 1, 1, 0])
    torch.manual_seed(0)

    images, shares = make_mixing("microscopy", 2)(labels[:, None, None, None].expand(-1, 3, 4, 4).float(), labels)

    assert torch.allclose(images[:, 0, 0, 0], shares[:, 1])
    assert torch.allclose(shares.sum(1), torch.ones(4))
    assert ((shares > 0) & (shares < 1)).any()


@pytest.mark.parametrize("looks", ["none", "digits", "photos"])
def test_other_images_are_not_mixed(looks: str):
    assert make_mixing(looks, 2) is None
