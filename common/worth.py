"""What the round was worth to a client, in one sentence: its personal model against the one without the round."""

from collections.abc import Iterable

from common.html_page import format_percent


def say_worth(
    without: float | None,
    with_round: float | None,
    everywhere: tuple[float | None, float | None] = (None, None),
    who: str = "you",
) -> str:
    """`Without the round you would have 81.2 %, with it 83.4; on everybody's images 71.0 and 79.0.` If it was worth
    nothing or did harm, the sentence says that first. Empty if it was not measured.

    without, with_round: accuracies in [0, 1] on the client's own test images.
    everywhere: the same on all clients' test images, if they are at hand.
    who: whom the sentence is about, `you` or somebody else.
    """
    if without is None or with_round is None:
        return ""
    tenths = tenths_gained(without, with_round)
    before, after = format_percent(without), format_percent(with_round)
    images = f"{'your' if who == 'you' else 'its'} own images"
    if tenths > 0:
        said = f"Without the round {who} would have {before} %, with it {after}"
    elif tenths == 0:
        said = f"On {images} the round was worth nothing: without it {who} would have {before} %, with it the same"
    else:
        lost = f"{-tenths / 10:.1f} points"
        said = f"On {images} the round cost {who} {lost}: without it {who} would have {before} %, with it {after}"
    if everywhere[0] is not None and everywhere[1] is not None:
        said += f"; on everybody's images {format_percent(everywhere[0])} and {format_percent(everywhere[1])}"
    return f"{said}."


def tenths_gained(without: float, with_round: float) -> int:
    """Tenths of a percentage point by which the two differ as they are shown."""
    shown, before = (round(10 * float(format_percent(accuracy))) for accuracy in (with_round, without))
    return shown - before


def mean_of_pairs(pairs: Iterable[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    """The mean of the first and of the second values, over pairs of which both are known."""
    known = [(first, second) for first, second in pairs if first is not None and second is not None]
    if not known:
        return None, None
    return sum(first for first, _ in known) / len(known), sum(second for _, second in known) / len(known)
