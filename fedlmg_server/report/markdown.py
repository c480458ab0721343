"""Tables of measured rows: Markdown with figures over seeds, CSV with every row."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from statistics import mean, stdev

from common.html_page import DASH


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


@dataclass(frozen=True)
class Column:
    """What a column of figures shows of rows: a field, times a factor, with so many digits."""

    key: str
    factor: float = 1
    digits: int = 0

    def cell(self, rows: Iterable) -> str:
        """Mean and standard deviation over rows that have the field."""
        values = (getattr(row, self.key) for row in rows)
        return spread((self.factor * value for value in values if value is not None), self.digits)


def as_csv(kind: type, rows: Iterable) -> str:
    """One line a row, which is a dataclass of this kind."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
