"""Figures as text: differences in percentage points, and intervals in percent."""

from common.html_page import DASH


def format_points(accuracy: float | None, reference: float | None) -> str:
    """Difference in percentage points with its sign; a dash where either is not measured."""
    if accuracy is None or reference is None:
        return DASH
    return f"{100 * (accuracy - reference):+.1f}".replace("-", "\N{MINUS SIGN}")


def format_interval(interval: tuple[float, float] | None) -> str:
    """Two fractions as percent, such as `60\N{EN DASH}83`; a dash if there is none."""
    return DASH if interval is None else "\N{EN DASH}".join(f"{100 * end:.0f}" for end in interval)
