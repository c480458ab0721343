"""How far each client can be trusted as a teacher, so that one badly trained or poisoned client does no harm (ours).

Classifiers do not transfer between domains, so a low cross-domain score is no evidence of a bad client. A client's
quality is the best of three measures: how its classifier reads the other clients' synthetic images, images in its own
look, and general images (see `witness/`). Where all three are weak, the validation accuracy that the client reports can
still get it half a vote, and no more. A client that reports none is measured by how the other classifiers read its
images instead; these follow the prompt too, and so say little of the client. Only a client whose measures are all near
chance is left out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median

import torch

from common.labels.maps import mark_known
from common.upload import Upload
from common.vision.metrics import above_chance
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.witness.judge import SILENT, Finding

NEAR_CHANCE, FULL_TRUST = 0.15, 0.3
"""Quality below which a client is left out, and from which it has full weight; measured on the embedded digits."""
MOST_BY_WORD = NEAR_CHANCE
"""Quality that a client's own word can get it: half of the full weight."""
MOST_READ = 16
"""Other clients whose images a client is shown: enough for a median."""
MOST_OF_ONE = 1000
"""Images of each of them; the plan has classes in turn, so the first ones are class-balanced."""


@dataclass(frozen=True)
class TeacherScore:
    """Qualities: 0 is chance or worse, 1 is perfect; None where nothing could be measured."""

    quality: float | None
    """The best of `reads_others`, `reads_general` and `reads_styled`; where these are small, of these and at most
    `MOST_BY_WORD` of `validation` or, without it, of `read_by_others`."""
    reads_others: float | None
    """Median over the other clients of how this one reads the images generated for them, of classes that both know."""
    read_by_others: float | None
    """Median over the other clients of how they read the images generated for this one."""
    validation: float | None
    """As the client reports it."""
    reads_general: float | None = None
    """How the client's warm-started classifier reads general images."""
    reads_styled: float | None = None
    """How its own classifier reads images in its look whose class the prompt alone decides."""
    weight: float = 1.0
    """Of its vote in multi-teacher averages, in [0, 1]; at 0 its images and targets are left out."""
    reason: str = ""
    """Why its weight is not 1."""

    def to_json(self) -> dict:
        return asdict(self)


def score_teachers(
    uploads: list[Upload],
    synthetic: SyntheticSet,
    guesses: dict[str, torch.Tensor],
    weighting: str,
    witnessed: Mapping[str, Finding] | None = None,
) -> dict[str, TeacherScore]:
    """Client -> score; guesses: the class that each teacher reads in each of the N synthetic images, int64 (N,), or -1
    where it was not shown the image; witnessed: client -> what the witness measured of it, where it was heard.

    With `weighting` `uniform`, or when nobody is clearly above chance, every weight is 1.
    """
    readings = _readings(uploads, synthetic, guesses)
    heard = witnessed or {}
    scores = {upload.client: _score(upload, readings, heard.get(upload.client, SILENT)) for upload in uploads}
    if weighting == "uniform" or not any(score.weight for score in scores.values()):
        return {client: replace(score, weight=1.0, reason="") for client, score in scores.items()}
    return scores


def _score(upload: Upload, readings: dict[tuple[str, str], float], witnessed: Finding) -> TeacherScore:
    reads = _median([value for (reader, _), value in readings.items() if reader == upload.client])
    read = _median([value for (_, author), value in readings.items() if author == upload.client])
    reported = upload.manifest.training.validation_accuracy
    validation = None if reported is None else above_chance(reported, len(upload.class_names))
    told = read if validation is None else validation
    counted = (reads, witnessed.reads_general, witnessed.reads_styled, told and min(told, MOST_BY_WORD))
    quality = max((value for value in counted if value is not None), default=None)
    score = TeacherScore(quality, reads, read, validation, witnessed.reads_general, witnessed.reads_styled)
    if quality is None or quality >= FULL_TRUST:
        return score
    shown = [f"{name} {value:.2f}" for name, value in _measures(score).items() if value is not None]
    near = quality < NEAR_CHANCE
    reason = ("near chance by every measure" if near else "weak") + f" (0 is chance, 1 perfect): {', '.join(shown)}"
    return replace(score, weight=0.0 if near else quality / FULL_TRUST, reason=reason)


def _measures(score: TeacherScore) -> dict[str, float | None]:
    return {
        "reads others' images": score.reads_others,
        "reads general images": score.reads_general,
        "reads images in its look": score.reads_styled,
        "others read its images": score.read_by_others,
        "its validation": score.validation,
    }


def choose_readings(clients: list[str], owners: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Client -> the images that it is shown, int64 (B,): all of its own, and the first `MOST_OF_ONE` of each of the
    others, or of many clients of the next `MOST_READ` in a circle in random order. So the time for all grows with the
    number of clients alone, and each is read by as many as it reads.

    owners: of each image the number of its client, int64 (N,).
    """
    rows = [(owners == number).nonzero().flatten() for number in range(len(clients))]
    circle = torch.randperm(len(clients), generator=torch.Generator().manual_seed(seed)).tolist()
    most, chosen = min(MOST_READ, len(clients) - 1), {}
    for place, reader in enumerate(circle):
        others = (circle * 2)[place + 1 : place + 1 + most]
        shown = torch.cat([rows[reader], *(rows[author][:MOST_OF_ONE] for author in others)])
        chosen[clients[reader]] = shown.sort().values
    return chosen


def _readings(
    uploads: list[Upload], synthetic: SyntheticSet, guesses: dict[str, torch.Tensor]
) -> dict[tuple[str, str], float]:
    """(reader, author) -> how far above chance a client reads another's images of the classes it knows, if any."""
    authors = {upload.client: number for number, upload in enumerate(uploads)}
    author_of = torch.tensor([authors[client] for client in synthetic.clients])
    readings = {}
    for reader in uploads:
        guessed = guesses[reader.client]
        counts = mark_known(reader.class_names, synthetic.class_names)[synthetic.labels] & (guessed >= 0)
        right = counts & (guessed == synthetic.labels)
        shown, read = (torch.bincount(author_of[rows], minlength=len(uploads)).tolist() for rows in (counts, right))
        for author, number in authors.items():
            if author != reader.client and shown[number]:
                accuracy = read[number] / shown[number]
                readings[reader.client, author] = above_chance(accuracy, len(reader.class_names), shown[number])
    return readings


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
