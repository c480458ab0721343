"""What a client's classifier makes of the images drawn for it, one line of JSON an image."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Score:
    """Of an image as saved: probability of the class asked for, in [0, 1], and whether that class is the most
    probable; `safe` is what the pipeline's safety checker says, where it has one."""

    file: str
    class_name: str
    confidence: float
    agrees: bool
    safe: bool = True


def append(file: Path, scores: Iterable[Score]) -> None:
    """On new lines, whatever a crash has left of the last one."""
    with open(file, "a") as lines:
        lines.write("\n")
        for score in scores:
            lines.write(json.dumps(score.__dict__) + "\n")


def read(folder: Path) -> dict[str, Score]:
    """The score of each image file of a client's synthetic folder; a line that a crash cut short is passed over."""
    scores = {}
    for file in sorted(folder.glob("scores-*.jsonl")):
        for line in file.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                score = Score(**json.loads(line))
                scores[score.file] = score
    return scores
