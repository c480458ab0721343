"""DENSE (Zhang et al., NeurIPS 2022): a generator trained on the ensemble alone, then distillation of the ensemble.

The generator's loss: cross-entropy of the ensemble + the statistics loss (the paper's BatchNorm loss; our uploads have
statistics for every net) + boundary support: images on which ensemble and student disagree, pushed further apart.
Rebuilt from the paper; a new generator in each epoch, as in its authors' code. The student takes as many updates as
everyone's.
"""

from functools import partial

import torch
import torch.nn.functional as F

from fedlmg_server.baselines import data_free
from fedlmg_server.baselines.data_free import Ensemble, Student
from fedlmg_server.baselines.federation import Federation, Outcome

STATISTICS_WEIGHT, BOUNDARY_WEIGHT = 1.0, 0.5
"""The paper's lambda 1 and 2."""


def dense(federation: Federation) -> Outcome:
    cost = federation.one_exchange()
    with cost.timed("server"):
        ensemble, student = Ensemble(federation), Student(federation)
        generator = torch.Generator().manual_seed(federation.config.seed)
        size = federation.config.training.image_size
        images = torch.empty(0, 3, size, size, device=federation.device)
        for epoch in range(student.num_epochs):
            made, _ = data_free.generate(federation, ensemble, student.model, generator_loss, generator)
            images = torch.cat([images, made])
            teach = partial(_teach, ensemble, images)
            student.learn(len(images), teach, student.updates_by(epoch), generator)
    cost.num_images = len(images)
    cost.download_bytes = federation.sent_back(student.model)
    return Outcome(federation.measure(student.model), cost)


def _teach(ensemble: Ensemble, images: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shown = images[rows.to(images.device)]
    with torch.no_grad():
        return shown, ensemble.logits(shown).softmax(1)


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
