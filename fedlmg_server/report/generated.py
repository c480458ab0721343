"""Generated images as the guiding classifiers read them: how many are learned from, how the losses fell."""

from pathlib import Path

from fedlmg_server.results import ImageCounts
from fedlmg_server.synthesis import scores, traces

Curve = list[tuple[float, float]]


def summary(folder: Path, rejected: dict[str, dict[str, int]]) -> ImageCounts:
    """Numbers of a client's synthetic images: generated, read as asked by its classifier, kept for learning.

    rejected: class -> reason -> number of images.
    """
    there = [score for file, score in scores.read_scores(folder).items() if (folder / file).exists()]
    return ImageCounts(
        generated=len(there),
        read_as_asked=sum(score.agrees for score in there),
        kept=len(there) - sum(count for reasons in rejected.values() for count in reasons.values()),
    )


def loss_curves(folder: Path) -> dict[str, Curve]:
    """Classification and statistics loss at each step, mean over a client's images; noise editing comes first.

    Steps count from 1, those of noise editing included, where only the statistics loss is known.
    """
    batches = traces.read_losses(folder)
    editing, classification, statistics = (
        _mean(batches, kind) for kind in ("noise editing", "classification", "statistics")
    )
    guided = range(len(editing) + 1, len(editing) + len(classification) + 1)
    return {
        "classification": list(zip(guided, classification, strict=True)),
        "statistics": list(enumerate(editing + statistics, 1)),
    }


def _mean(batches: list[dict], kind: str) -> list[float]:
    """At each step, weighted by the batches' sizes."""
    seen = [(batch["images"], batch[kind]) for batch in batches if kind in batch]
    steps = max((len(values) for _, values in seen), default=0)
    weighted = [[(number, values[step]) for number, values in seen if step < len(values)] for step in range(steps)]
    return [sum(number * value for number, value in each) / sum(number for number, _ in each) for each in weighted]
