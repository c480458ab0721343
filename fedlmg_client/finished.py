"""Finished trainings in a client's cache that were damaged since."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.telling import ToldError, first_line


@contextmanager
def tell_damage(folder: Path) -> Iterator[None]:
    """Read a finished training in `folder` within. It may have been sent, so it is not trained again unasked.

    Raises
    ------
    ToldError: one of its files is missing or is not what was written.
    """
    try:
        yield
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise ToldError(
            f"the finished training in {folder} is damaged ({first_line(error)}): remove that folder, and it is "
            "trained again",
            "its finished training is damaged, and must be removed before it trains again",
        ) from None
