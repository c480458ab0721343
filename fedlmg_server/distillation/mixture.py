"""Synthetic and general images in one training set, so that a student keeps general knowledge (ours)."""

import torch

from common.datasets.labeled_images import LabeledView
from common.storage.images import ImageView
from fedlmg_server.general.images import general_class_names, load_general_images
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet

GUIDED_SHARE = 0.5
"""Share of each batch, in the mean, that is synthetic."""


def mix(synthetic: TrainingSet, general: LabeledView) -> TrainingSet:
    """Synthetic images, repeated until they are `GUIDED_SHARE` of the set, and general images with their labels.

    Both have images of one size, uint8 (N, 3, h, w). A general image has no probabilities: its row is zero. Readers of
    the synthetic set have votes on its images and then on the general ones.
    """
    if synthetic.labels is None:
        raise ValueError("synthetic images that are mixed with general ones must have labels")
    count = len(general)
    wanted = round(count * GUIDED_SHARE / (1 - GUIDED_SHARE))
    # An epoch shows each general image once. With few general images every synthetic image is still there once.
    rows = torch.arange(max(wanted, len(synthetic.images))) % len(synthetic.images)
    teacher = None
    if synthetic.teacher is not None:
        nobody = torch.zeros(count, synthetic.teacher.shape[1], dtype=synthetic.teacher.dtype)
        teacher = torch.cat([synthetic.teacher[rows], nobody])
    behind = len(synthetic.images) + torch.arange(count)
    readers = synthetic.readers.choose(torch.cat([rows, behind])) if synthetic.readers else None
    return TrainingSet(
        ImageView.of(synthetic.images).choose(rows).join(general.images),
        torch.cat([synthetic.labels[rows], general.labels]),
        teacher,
        readers,
    )


def load_general(run: Run) -> LabeledView:
    """The general images that students learn from, with labels in the run's classes."""
    images = load_general_images(run).train
    rows = torch.tensor([run.class_names.index(name) for name in general_class_names(run)])
    return images.with_labels(rows[images.labels])
