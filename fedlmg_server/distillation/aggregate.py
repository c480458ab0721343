"""The returned model: a student of the synthetic images and the clients' classifiers, or a merge of these."""

from dataclasses import dataclass

import torch

from common.config import ConfigError
from common.datasets.labeled_images import LabeledImages
from fedlmg_server.distillation import merged_student, teachers
from fedlmg_server.distillation.merge import Member, Merged
from fedlmg_server.distillation.mixture import mix
from fedlmg_server.distillation.quality import TeacherScore, score_teachers
from fedlmg_server.distillation.student import train_student
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.general.images import general_class_names, load_general_images
from fedlmg_server.run import Run
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.trainer import OnEpoch, TrainingSet
from fedlmg_server.witness.hearing import findings

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
    merged: Merged | None = None
    """How the uploads were merged, where they were."""


class TeacherCache:
    """Each teacher reads each set once."""

    def __init__(self, run: Run, synthetic: SyntheticSet):
        self.run, self.synthetic, self.known = run, synthetic, run.known_classes
        self.per_client = teachers.predict_with_all(run, synthetic.images)

    def training_set(self, aggregation: str, weights: dict[str, float]) -> TrainingSet:
        """Images and targets of one aggregation, without the images of clients whose weight is 0; with a warm start,
        general images are among them."""
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
        found = TrainingSet(images.images[rows], images.labels[rows], targets)
        return mix(found, self._load_general()) if self.run.config.general.warm_start else found

    def _load_general(self) -> LabeledImages:
        """General images with labels in the run's classes."""
        images = load_general_images(self.run).train
        rows = torch.tensor([self.run.class_names.index(name) for name in general_class_names(self.run)])
        return LabeledImages(images.images, rows[images.labels])


def distil(run: Run, synthetic: SyntheticSet, on_epoch: OnEpoch = lambda entry: None) -> Distilled:
    """Score the clients as teachers and make the model that the config asks for.

    Raises
    ------
    ConfigError: no image or no upload can be learned from.
    """
    cache, settings = TeacherCache(run, synthetic), run.config.distillation
    weighting, witnessed = settings.teacher_weighting, findings(run)
    scores = score_teachers(run.uploads, synthetic, cache.per_client, weighting, witnessed)
    weights = {client: score.weight for client, score in scores.items()}
    if settings.aggregation == "merge":
        model, history, merged = _merge(run, cache, weights, on_epoch)
        return Distilled(model, history, scores, synthetic.rejected, merged)
    model, history = train_student(run, cache.training_set(settings.aggregation, weights), on_epoch)
    return Distilled(model, history, scores, synthetic.rejected)


def _merge(
    run: Run, cache: TeacherCache, weights: dict[str, float], on_epoch: OnEpoch
) -> tuple[torch.nn.Module, list[dict], Merged | None]:
    """The merge, the loss history of the guided student, and how it was merged; without members, that student alone."""
    start = merged_student.Start.of_run(run)
    members = merged_student.find_members(run, start, weights)
    there = {member.client for member in members}
    others = {client: 0.0 if client in there else weight for client, weight in weights.items()}
    history: list[dict] = []
    if any(others.values()):
        student, history = train_student(run, cache.training_set("specific-teacher", others), on_epoch)
        state = {name: tensor.detach().cpu() for name, tensor in student.state_dict().items()}
        members.append(Member(merged_student.GUIDED, state, sum(others.values())))
        if not there:
            return student, history, None
    model, merged = merged_student.merge_members(run, start, members)
    return model, history, merged
