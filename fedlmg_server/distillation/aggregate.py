"""One student from the synthetic images and the clients' classifiers as teachers."""

from dataclasses import dataclass

import torch

from common.config import ConfigError
from fedlmg_server.distillation import teachers
from fedlmg_server.distillation.quality import TeacherScore, score_teachers
from fedlmg_server.distillation.student import train_student
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.run import Run
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.trainer import OnEpoch, TrainingSet

AGGREGATIONS = ("fine-tuning", "multi-teacher", "specific-teacher")


@dataclass(frozen=True)
class Distilled:
    """A student, and what it came from."""

    model: torch.nn.Module
    history: list[dict]
    """Loss by epoch."""
    scores: dict[str, TeacherScore]
    """By client."""
    rejected: Rejected


class TeacherCache:
    """Each teacher reads each set once."""

    def __init__(self, run: Run, synthetic: SyntheticSet):
        self.synthetic, self.known = synthetic, run.known_classes
        self.per_client = teachers.predict_with_all(run, synthetic.images)

    def training_set(self, aggregation: str, weights: dict[str, float]) -> TrainingSet:
        """Images and targets of one aggregation, without the images of clients whose weight is 0."""
        images = self.synthetic
        rows = torch.tensor([weights[client] > 0 for client in images.clients])
        if not rows.any():
            raise ConfigError(
                "no image of a client that can be trusted passed the filter: set the config key 'teacher-weighting' "
                "to 'uniform', or lower 'min-confidence'"
            )
        targets = None
        if aggregation == "multi-teacher":
            targets = teachers.multi_teacher(self.per_client, self.known, weights, images.labels)[rows]
        elif aggregation == "specific-teacher":
            targets = teachers.specific_teacher(self.per_client, images.clients)[rows]
        return TrainingSet(images.images[rows], images.labels[rows], targets)


def distil(run: Run, synthetic: SyntheticSet, on_epoch: OnEpoch = lambda entry: None) -> Distilled:
    """Score the clients as teachers and train the student that the config asks for."""
    cache, settings = TeacherCache(run, synthetic), run.config.distillation
    scores = score_teachers(run.uploads, synthetic, cache.per_client, settings.teacher_weighting)
    weights = {client: score.weight for client, score in scores.items()}
    model, history = train_student(run, cache.training_set(settings.aggregation, weights), on_epoch)
    return Distilled(model, history, scores, synthetic.rejected)
