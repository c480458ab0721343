"""Events of a program that runs: it appends them to a file of JSON lines, which other programs read meanwhile."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from common.contracts import Contract
from common.storage import json_lines
from common.storage.json_lines import Tail


class Event(Contract):
    """Each kind of event is a subclass, which says in `kind` and sometimes in `state` which one it is."""

    time: float = Field(default_factory=time.time)
    """Seconds since the epoch."""


E = TypeVar("E", bound=Event)


def append_event(file: Path, event: Event) -> None:
    json_lines.append(file, [event.to_json()])


class EventTail(Generic[E]):
    """The events of a file that grows; lines that are none, or of a kind that this version does not know, are skipped.

    kinds: the union of the kinds.
    skips_existing: events that the file has now are never returned.
    """

    def __init__(self, file: Path, kinds: TypeAdapter[E], skips_existing: bool = False) -> None:
        self._lines, self._kinds = Tail(file, skips_existing), kinds

    def read_new(self) -> Iterator[E]:
        """The events that this method has not returned before."""
        for entry in self._lines.read_new():
            try:
                event = self._kinds.validate_python(entry)
            except ValidationError:
                continue
            yield event
