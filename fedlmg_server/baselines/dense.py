"""DENSE (Zhang et al., NeurIPS 2022): a generator trained on the ensemble alone, then distillation of the ensemble.

The generator's loss: cross-entropy of the ensemble + the statistics loss (the paper's BatchNorm loss; our uploads have
statistics for every net) + boundary support: images on which ensemble and student disagree, pushed further apart.
Rebuilt from the paper; a new generator in each epoch, as in its authors' code. The student takes as many updates as
everyone's.
"""

import torch
import torch.nn.functional as F

from fedlmg_server.baselines import data_free
from fedlmg_server.baselines.outcome import Outcome
from fedlmg_server.baselines.virtual_run import VirtualRun

STATISTICS_WEIGHT, BOUNDARY_WEIGHT = 1.0, 0.5
"""The paper's lambda 1 and 2."""


def dense(run: VirtualRun) -> Outcome:
    return data_free.train_on_generated(run, generator_loss, show=lambda ensemble, images, generator: images)


def generator_loss(
    labels: torch.Tensor,  # (B,)
    logits: torch.Tensor,  # (B, classes)
    distance: torch.Tensor,  # ()
    student_logits: torch.Tensor,  # (B, classes)
) -> torch.Tensor:
    """The paper's generation loss: smaller is better for the generator."""
    disagree = (logits.argmax(1) != student_logits.argmax(1)).float()
    boundary = -(disagree * data_free.divergence(logits, student_logits)).mean()
    return F.cross_entropy(logits, labels) + STATISTICS_WEIGHT * distance + BOUNDARY_WEIGHT * boundary
