"""Augmentation keeps what an image shows, its range and its seed."""

import torch

from common.vision.augmentation import augment, vary_look

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
