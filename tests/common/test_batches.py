"""Batches of an epoch: each image once, or each class as often as every other."""

import pytest
import torch

from common.vision.batches import balance_batches, balance_rows, shuffle_batches


def labels_of(*counts: int) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@pytest.mark.parametrize("counts", [(40, 40, 40), (20, 0, 40), (7,)])
def test_images_of_like_classes_come_once_each(counts: tuple[int, ...]):
    labels = labels_of(*counts)

    rows = balance_rows(labels, torch.Generator().manual_seed(0))

    assert torch.equal(rows, torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)))


def test_unlike_classes_are_drawn_as_often_as_each_other():
    labels = labels_of(900, 0, 90, 10)

    rows = balance_rows(labels, torch.Generator().manual_seed(0))

    counts = labels[rows].bincount(minlength=4).tolist()
    assert len(rows) == 1000
    assert counts[1] == 0
    assert all(270 < counts[label] < 400 for label in (0, 2, 3))


def test_batches_of_like_classes_are_those_of_a_shuffle():
    labels = labels_of(5, 5)

    batches = balance_batches(labels, 4, torch.Generator().manual_seed(3))

    shuffled = shuffle_batches(10, 4, torch.Generator().manual_seed(3))
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in shuffled]
