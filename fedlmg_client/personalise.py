"""A personal model: the returned one, fine-tuned on the client's images and averaged with what it was (WiSE-FT, ours).

Candidates are the model as it came, averages with its fine-tuned weights (arXiv 2109.01903), and the client's upload if
that is clearly better. Cross-entropy on validation images decides, since accuracies of a hundred images are often
equal. An average whose accuracy on them is below that of the model as it came is none.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from common import labels
from common.clients.data import ClientData
from common.config import Config
from common.datasets.labeled_images import LabeledView
from common.labels import maps
from common.models import architectures
from common.start import Start
from common.storage.images import ImageView
from common.upload import weights_digest
from common.vision.looks import describe
from common.vision.metrics import accuracy, predict
from fedlmg_client import fine_tuning
from fedlmg_client.models import Model
from fedlmg_client.personal_training import Report, fine_tune, make_replay

RECIPE = 2
"""Number of the recipe: a personal model of another one is made anew."""
ALPHAS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the fine-tuned weights in the averages that are tried."""
FEWEST = 50
"""Validation images by which a share is chosen. With fewer, it is the largest share that forgets little."""
LARGEST_FALL = 0.05
"""The accuracy on general images may fall by at most this much against the model as it came."""

Kind = Literal["fine-tuned", "unchanged", "own"]
MARGIN = 2
"""Standard errors by which the client's upload must beat the others on validation images: its best epoch was chosen on
these, so its accuracy on them flatters it."""
MOST_JUDGED = 1000
"""General images on which a candidate is measured."""


@dataclass(frozen=True)
class Candidate:
    """A model that could become the personal one."""

    kind: Kind
    """`fine-tuned`: an average with the fine-tuned weights; `unchanged`: the model as it came; `own`: the client's
    upload."""
    alpha: float
    """Share of the fine-tuned weights; 0 unless it is fine-tuned."""
    validation: float | None
    """Accuracy on the client's validation images, in [0, 1]; None: not measured."""
    general: float | None
    """Accuracy on replayed general images; None: not measured."""
    loss: float | None = None
    """Cross-entropy on the client's validation images, in nats; None: not measured."""


@dataclass(frozen=True)
class Personalised:
    """The model that was chosen."""

    model: Model
    chosen: Candidate
    candidates: list[Candidate]
    """All that were measured; empty if the base knows no class of the training images."""

    def describe(self) -> str:
        """In a sentence, what was chosen and why."""
        return say_choice(self.recipe())

    def recipe(self) -> dict[str, Any]:
        """How it was made, for `model.json`."""
        return asdict(self.chosen) | {"candidates": [asdict(each) for each in self.candidates]}


def personalise(
    base: Model,
    own: Model | None,
    data: ClientData,
    start: Start | None,
    config: Config,
    checkpoint: Path,
    report: Report,
) -> Personalised:
    """Fine-tune `base` on the client's images and choose among the candidates by its validation images.

    An average is no candidate if its accuracy on the start's general images falls by more than `LARGEST_FALL`. With
    fewer than `FEWEST` validation images, the candidate with the largest share of fine-tuned weights is taken.

    Parameters
    ----------
    own: the client's upload, if it is at hand.
    start: gives the general images that are replayed, under the probabilities of `base`; None: nothing is replayed.
    checkpoint: file that is written after each epoch, and from which an interrupted fine-tuning continues.
    """
    net = base.build(config.builders)
    before = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    known = _find(data.class_names, base.class_names, config)[data.train.labels]
    train = data.train.with_labels(known)
    unchanged = Candidate("unchanged", 0.0, None, None)
    if not len(train):
        return Personalised(base, unchanged, [])
    replay = make_replay(net, base.preprocess, start)
    fine_tune(net, train, base.preprocess, replay, config, checkpoint, report, data.name)
    after = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def averaged(alpha: float) -> Model:
        return replace(base, arrays={name: each.cpu() for name, each in interpolate(before, after, alpha).items()})

    seen = data if len(data.validation) >= FEWEST else replace(data, validation=data.validation.choose(torch.arange(0)))
    candidates = []
    for alpha in (0.0, *ALPHAS):
        net.load_state_dict(interpolate(before, after, alpha))
        kind: Kind = "fine-tuned" if alpha else "unchanged"
        candidates.append(Candidate(kind, alpha, *_measure(net, base, seen, start, config)))
    if own and len(seen.validation):
        built = own.build(config.builders | {own.architecture})
        candidates.append(Candidate("own", 0.0, *_measure(built, own, data, start, config)))
    chosen = choose(candidates, len(data.validation))
    if own and chosen.kind == "own":
        return Personalised(own, chosen, candidates)
    return Personalised(averaged(chosen.alpha) if chosen.alpha else base, chosen, candidates)


def say_choice(recipe: Mapping[str, Any]) -> str:
    """What became of a model, in a clause, from its recipe in `model.json`."""
    if recipe["kind"] == "own":
        said = "it is your own upload"
    elif recipe["kind"] == "unchanged":
        said = "it stays as it came"
        if not recipe["candidates"]:
            return f"{said}, for it knows no class of your training images"
        if recipe["validation"] is None:
            fall = f"its accuracy on general images falls by over {100 * LARGEST_FALL:.0f} points"
            return f"{said}, for fine-tuned on your images it forgets too much: {fall}"
    else:
        said = f"fine-tuned on your images, with {recipe['alpha']:.0%} of the change"
    if recipe["validation"] is None:
        return f"{said}: too few validation images to choose by, fewer than {FEWEST}"
    return f"{said}: of your validation images, by which it was chosen, it reads {recipe['validation']:.1%}"


def choose(candidates: list[Candidate], num_validation: int) -> Candidate:
    """The one with the smallest loss on validation images among those that forget little and do not read these worse
    than the model as it came. Without validation images, the one that changes most among those that forget little.

    candidates: one is `unchanged`, and at most one is `own`.
    """
    own = [each for each in candidates if each.kind == "own"]
    others = [each for each in candidates if each.kind != "own"]
    (unchanged,) = (each for each in others if each.kind == "unchanged")

    def serves(candidate: Candidate) -> bool:
        return not (
            _is_below(candidate.general, unchanged.general, LARGEST_FALL)
            or _is_below(candidate.validation, unchanged.validation, 0.0)
        )

    best = min(filter(serves, others), key=lambda each: (each.loss or 0.0, -each.alpha))
    return own[0] if own and _clearly_beats(own[0], best, num_validation) else best


def _is_below(accuracy: float | None, reference: float | None, by: float) -> bool:
    return accuracy is not None and reference is not None and accuracy < reference - by


def _clearly_beats(own: Candidate, best: Candidate, num_validation: int) -> bool:
    """Whether it is better by more than chance: the share is estimated with two successes and two failures added."""
    if own.validation is None or best.validation is None:
        return False
    share = (own.validation * num_validation + 2) / (num_validation + 4)
    return own.validation - best.validation > MARGIN * math.sqrt(share * (1 - share) / num_validation)


def interpolate(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """before + alpha * (after - before), BatchNorm's running moments included; counters are those of `after`."""
    return {
        name: tensor + alpha * (after[name] - tensor) if tensor.is_floating_point() else after[name]
        for name, tensor in before.items()
    }


def digest(base: Model, own: Model | None, data: ClientData, start: Start | None, config: Config) -> str:
    """A checksum that changes with everything that changes a personal model."""
    settings = asdict(config.training) | {"seed": config.seed, "aliases": config.clients.class_aliases}
    settings |= {"looks": describe(config.general.looks)}
    models = [[each.architecture, each.class_names, weights_digest(each.arrays)] for each in (base, own) if each]
    replayed = fine_tuning.digest_replay(start) if start else ""
    names = {each.architecture for each in (base, own) if each}
    sources = [architectures.hash_source(name, config.builders | names) for name in sorted(names)]
    key = [RECIPE, sources, settings, models, data.name, data.class_names, data.fingerprint, replayed]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _measure(
    net: torch.nn.Module, model: Model, data: ClientData, start: Start | None, config: Config
) -> tuple[float | None, float | None, float | None]:
    """Accuracy on the client's validation images, accuracy on the start's general images, and cross-entropy on the
    former; None without images."""
    general = None
    if start and len(start.replay):
        rows = slice(None, None, -(-len(start.replay) // MOST_JUDGED) or 1)
        part = LabeledView(ImageView.of(start.replay.images[rows]), start.replay.labels[rows])
        general = accuracy(*_read(net, model, part, start.class_names, config))
    if not len(data.validation):
        return None, general, None
    probabilities, asked = _read(net, model, data.validation, data.class_names, config)
    known = asked >= 0
    # A class that the model lacks costs every candidate alike.
    log_p = probabilities[known, asked[known]].clamp(min=torch.finfo(torch.float32).tiny).log()
    return accuracy(probabilities, asked), general, -log_p.sum().item() / len(asked)


def _read(
    net: torch.nn.Module, model: Model, images: LabeledView, class_names: list[str], config: Config
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, the model's classes), and the images' labels (N,) among these, -1 for one that it lacks."""
    return predict(net, model.preprocess, images.images), _find(class_names, model.class_names, config)[images.labels]


def _find(local: list[str], names: list[str], config: Config) -> torch.Tensor:
    return maps.find_indices(local, names, labels.parse_aliases(config.clients.class_aliases))
