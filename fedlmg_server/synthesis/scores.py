"""What a client's classifier makes of the images generated for it, one line of JSON an image."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.storage import json_lines


@dataclass(frozen=True)
class Score:
    """Of an image as saved: probability of the class asked for, in [0, 1], and whether that class is the most
    probable; `safe` is what the pipeline's safety checker says, where it has one.

    `finite`: image and probabilities are numbers; where they are not, the file is black, and the confidence 0.
    """

    file: str
    class_name: str
    confidence: float
    agrees: bool
    safe: bool = True
    finite: bool = True


def append_scores(file: Path, scores: Iterable[Score]) -> None:
    """On the disk before the images are, so that none is there without its score."""
    json_lines.append(file, (score.__dict__ for score in scores), is_durable=True)


def file_of(folder: Path, rank: int) -> Path:
    """The file to which process number `rank` appends."""
    return folder / f"scores-{rank}.jsonl"


def files(folder: Path) -> list[Path]:
    """Those of a client's synthetic folder that hold scores, one for each process."""
    return sorted(folder.glob("scores-*.jsonl"))


def read_scores(folder: Path) -> dict[str, Score]:
    """The score of each image file of a client's synthetic folder; a line that a crash cut short is passed over."""
    scores = {}
    for file in files(folder):
        for entry in json_lines.read(file):
            scores[entry["file"]] = Score(**entry)
    return scores
