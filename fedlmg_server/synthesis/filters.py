"""Which drawn images are learned from, and why the others are not (ours)."""

from common.config.synthesis import SynthesisConfig
from fedlmg_server.synthesis.scores import Score

Rejected = dict[str, dict[str, dict[str, int]]]
"""Client -> class -> reason (`confidence` or `unsafe`) -> number of images."""


def reason(score: Score, config: SynthesisConfig, is_guided: bool = True) -> str:
    """Why an image is not learned from by its own score, empty when it is; confidence is asked of guided ones only."""
    if not score.safe:
        return "unsafe"
    return "confidence" if is_guided and score.confidence < config.min_confidence else ""


def count(rejected: Rejected, client: str, class_name: str, why: str) -> None:
    reasons = rejected.setdefault(client, {}).setdefault(class_name, {})
    reasons[why] = reasons.get(why, 0) + 1
