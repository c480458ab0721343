"""Which synthetic images the student learns from, and why it does not learn from the others (ours)."""

from fedlmg_server.synthesis.scores import Score

Rejected = dict[str, dict[str, dict[str, int]]]
"""Client -> class -> reason (`confidence`, `unsafe` or `not-finite`) -> number of images."""


def find_reason(score: Score, min_confidence: float, is_guided: bool = True) -> str:
    """Why an image is rejected by its own score, empty when it is accepted; unguided images need no confidence."""
    if not score.finite:
        return "not-finite"
    if not score.safe:
        return "unsafe"
    return "confidence" if is_guided and score.confidence < min_confidence else ""


def count_rejected(rejected: Rejected, client: str, class_name: str, reason: str) -> None:
    reasons = rejected.setdefault(client, {}).setdefault(class_name, {})
    reasons[reason] = reasons.get(reason, 0) + 1
