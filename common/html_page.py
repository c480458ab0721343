"""Templates of the server's report and of a client's page: how they are found and filled.

A Flower bundle carries only code and configuration, so templates are looked for in the installed distribution as well.
"""

import base64
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from common.storage.installed import find_installed

SHARED = Path("common/pages/macros.html.j2")
"""The tables that all pages share; `style.css` beside it is their look."""


DASH = "\N{EN DASH}"
"""Stands for a figure that was not measured."""


def format_percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as percent, 0.8123 -> `81.2`; a dash if it was not measured."""
    return DASH if accuracy is None else f"{100 * accuracy:.1f}"


@cache
def load_template(path: Path) -> jinja2.Template:
    """A jinja2 template that escapes all text, given its path from the root of the checkout or wheel.

    It can import or include the templates beside it and those beside `SHARED`.

    Raises
    ------
    FileNotFoundError: FedLMG is installed without its templates.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([find_installed(path).parent, find_installed(SHARED).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": format_percent, "data_uri": _data_uri}
    return environment.get_template(path.name)


def find_mistakes(
    rows: list[str], columns: list[str], counts: list[list[int]], correct: list[int], most: int
) -> list[tuple[str, str, float]]:
    """The `most` most frequent confusions: (true class, predicted class, share of the true class's images in [0, 1]).

    rows, columns: the true and the predicted classes of `counts`.
    correct: for each row, the index of the right column.
    """
    found = [
        (rows[i], columns[j], count / sum(line))
        for i, line in enumerate(counts)
        for j, count in enumerate(line)
        if count and j != correct[i]
    ]
    return sorted(found, key=lambda each: -each[2])[:most]


def _data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
