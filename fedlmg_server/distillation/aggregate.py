"""The returned model: a student of the synthetic images and the clients' classifiers, or a merge of these."""

from dataclasses import dataclass
from pathlib import Path

import torch

from common.config import ConfigError
from common.storage.images import ImageView
from common.upload import Upload
from fedlmg_server.distillation import merged_student, teachers
from fedlmg_server.distillation.merge import Member, Merged
from fedlmg_server.distillation.mixture import load_general, mix
from fedlmg_server.distillation.quality import TeacherScore, choose_readings, score_teachers
from fedlmg_server.distillation.student import train_student
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.readers import Readers
from fedlmg_server.run import Run
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.trainer import OnEpoch, TrainingSet
from fedlmg_server.witness.hearing import findings


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
    """What the teachers say of the synthetic images. While it is made, the probabilities of one teacher at a time are
    in memory, of these only one part, and the upload that they come from."""

    def __init__(self, run: Run, synthetic: SyntheticSet):
        self.run, self.synthetic = run, synthetic
        self.images = ImageView.of(synthetic.images)
        number = {upload.client: row for row, upload in enumerate(run.uploads)}
        self._owners = torch.tensor([number[client] for client in synthetic.clients])
        self._shown = choose_readings(list(number), self._owners, run.config.seed)
        self.guesses: dict[str, torch.Tensor] = {}
        """Client -> the class that it reads in each image, int64 (N,); -1 for images that it was not shown."""
        dtype = torch.float32 if self.images.is_in_memory else torch.float16
        self.own = torch.zeros(len(self.images), len(run.class_names), dtype=dtype)
        """For each image the probabilities of the client that it was generated for (paper, Eq. 13): (N, classes)."""
        teachers.read_with_all(run, self._note)

    def _note(self, upload: Upload, read: teachers.Read) -> None:
        rows = self._shown[upload.client]
        guesses = self.guesses[upload.client] = torch.full((len(self.images),), -1)
        owner = next(row for row, each in enumerate(self.run.uploads) if each.client == upload.client)
        for part in read(self.images.choose(rows)):
            shown, rows = rows[: len(part)], rows[len(part) :]
            guesses[shown] = part.argmax(1)
            is_own = self._owners[shown] == owner
            self.own[shown[is_own]] = part[is_own].to(self.own.dtype)

    def training_set(self, aggregation: str, weights: dict[str, float]) -> TrainingSet:
        """Images and targets of one aggregation, without the images of clients whose weight is 0; with a warm start,
        general images are among them, and few teachers read every view of an image."""
        labels = self.synthetic.labels
        rows = torch.tensor([weights[upload.client] > 0 for upload in self.run.uploads])[self._owners]
        if not rows.any():
            raise ConfigError(
                "no image of a client that can be trusted passed the filter: set the config key 'teacher-weighting' "
                "to 'uniform', or lower 'min-confidence'"
            )
        images, labels = self.images.choose(rows), labels[rows]
        general = load_general(self.run) if self.run.config.general.warm_start else None
        readers = None
        if general is not None and aggregation != "fine-tuning":
            votes = self._votes(aggregation, weights, labels, self._owners[rows], general.labels)
            readers = Readers.of(self.run.uploads, self.run.class_names, votes)
        targets = None if readers else self._targets(aggregation, weights, images, labels, rows)
        found = TrainingSet(images, labels, targets, readers)
        return found if general is None else mix(found, general)

    def _targets(
        self, aggregation: str, weights: dict[str, float], images: ImageView, labels: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor | None:
        """What the teachers say of the images, each read once; rows: bool, which of all images these are."""
        if aggregation == "multi-teacher":
            return teachers.multi_teacher_in_parts(self.run, images, labels, weights, self.own.dtype)
        return self.own[rows] if aggregation == "specific-teacher" else None

    def _votes(
        self,
        aggregation: str,
        weights: dict[str, float],
        labels: torch.Tensor,  # (N,) of guided images
        owners: torch.Tensor,  # (N,)
        of_general: torch.Tensor,  # (M,) labels of general images
    ) -> torch.Tensor:
        """The weight of each client's answer on each image, float32 (uploads, N + M).

        On general images it is 0 for `specific-teacher`: no client guided them.
        """
        uploads, known = self.run.uploads, self.run.known_classes
        if aggregation == "multi-teacher":
            everything = torch.cat([labels, of_general])
            return torch.stack([weights[each.client] * known[each.client][everything].float() for each in uploads])
        guided = torch.stack([(owners == number).float() for number in range(len(uploads))])
        return torch.cat([guided, torch.zeros(len(uploads), len(of_general))], dim=1)


def distil(run: Run, synthetic: SyntheticSet, on_epoch: OnEpoch = lambda entry: None) -> Distilled:
    """Score the clients as teachers and make the model that the config asks for.

    Raises
    ------
    ConfigError: no image or no upload can be learned from.
    """
    cache, settings = TeacherCache(run, synthetic), run.config.distillation
    weighting, witnessed = settings.teacher_weighting, findings(run)
    scores = score_teachers(run.uploads, synthetic, cache.guesses, weighting, witnessed)
    weights = {client: score.weight for client, score in scores.items()}
    if settings.aggregation == "merge":
        model, history, merged = _merge(run, cache, weights, on_epoch)
        return Distilled(model, history, scores, synthetic.rejected, merged)
    data = cache.training_set(settings.aggregation, weights)
    model, history = train_student(run, data, on_epoch, _checkpoint(run))
    return Distilled(model, history, scores, synthetic.rejected)


def _checkpoint(run: Run) -> Path:
    return run.workspace.distillation / "student.safetensors"


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
        student, history = train_student(
            run, cache.training_set("specific-teacher", others), on_epoch, _checkpoint(run)
        )
        state = {name: tensor.detach().cpu() for name, tensor in student.state_dict().items()}
        members.append(Member(merged_student.GUIDED, state, sum(others.values())))
        if not there:
            return student, history, None
    model, merged = merged_student.merge_members(run, start, members)
    return model, history, merged
