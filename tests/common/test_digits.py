"""The embedded federation: fixed splits, and a public set that shares nothing with it."""

import numpy as np
import pytest
import torch

from common.datasets.embedded import digits, public_digits


@pytest.mark.parametrize("domain", digits.DOMAINS)
def test_splits_have_their_sizes_and_every_class(domain):
    splits = digits.load(domain)

    assert {name: len(split) for name, split in splits.items()} == digits.SPLIT_SIZES
    assert [len(split.labels.unique()) for split in splits.values()] == [10, 10, 10]
    assert splits["train"].images.shape[1:] == (3, 32, 32)


def test_no_image_is_in_two_splits():
    splits = digits.load("mnist")
    rows = torch.cat([split.images.flatten(1) for split in splits.values()])

    assert len(rows.unique(dim=0)) == len(rows)


def test_public_handwriting_is_disjoint_from_the_clients():
    purposes = [digits.mnist_rows(purpose) for purpose in ("mnist", "mnist-m", "public", "public-held-out")]

    assert len(np.unique(np.concatenate(purposes))) == sum(map(len, purposes))


def test_public_fonts_are_not_the_clients():
    assert not set(public_digits.PUBLIC_FONTS) & set(digits.CLIENT_FONTS)


def test_public_set_is_the_same_for_a_seed():
    assert torch.equal(public_digits.make_images(5, seed=3).images, public_digits.make_images(5, seed=3).images)


def test_unknown_domain_is_named():
    with pytest.raises(ValueError, match="got 'usps'"):
        digits.load("usps")
