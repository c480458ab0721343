"""What the installed Flower says somewhere in its source, for the tests of what it does not document."""

from functools import cache
from pathlib import Path

import flwr


@cache
def source() -> str:
    """The text of all modules of the installed package."""
    return "\n".join(path.read_text() for path in sorted(Path(flwr.__file__).parent.rglob("*.py")))


def says(text: str) -> bool:
    return text in source()
