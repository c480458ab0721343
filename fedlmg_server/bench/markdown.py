"""Markdown tables of figures over seeds."""

from collections.abc import Iterable
from statistics import mean, stdev

DASH = "\N{EN DASH}"


def spread(values: Iterable[float], digits: int = 1, sign: str = "") -> str:
    """Mean and standard deviation; the mean alone of one value, a dash of none. `sign` `+` shows it of any mean."""
    values = list(values)
    if not values:
        return DASH
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{deviation}"


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(headings: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Ends in a line break."""
    return "".join(f"{line(cells)}\n" for cells in [headings, ["---"] * len(headings), *rows])
