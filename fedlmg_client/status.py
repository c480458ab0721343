"""A client's status as events in its cache folder: ClientApp and SuperNode write them, `join` reads them."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from common.storage import json_lines
from common.storage.json_lines import Tail


def append_event(cache: Path, kind: str, **details: object) -> None:
    """Append one event to `events.jsonl`: a line of JSON with the time in seconds since the epoch.

    Best effort: failures to write the event are ignored.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        json_lines.append(cache / "events.jsonl", [{"time": time.time(), "kind": kind, **details}])
    except OSError:
        pass


@dataclass
class Status:
    """The status as one line, from the events that were written after this object was made."""

    cache: Path
    stage: str = "waiting for the server"
    sent: int = 0
    """Bytes of the current reply that the server has received."""
    total: int = 0
    """Bytes of the current upload; 0 if no upload is in progress."""
    offline: str = ""
    """Why the server cannot be reached; empty if it can."""
    _events: Tail = field(init=False)

    def __post_init__(self) -> None:
        self._events = Tail(self.cache / "events.jsonl", skips_existing=True)

    def poll(self) -> str:
        """Read new events, and return the line to show."""
        for event in self._events.read_new():
            self._apply(event)
        return self.to_line()

    def to_line(self) -> str:
        text = self.stage
        if self.total and self.stage == "uploading":
            text = f"uploading {min(self.sent, self.total) / 1e6:.1f} of {self.total / 1e6:.1f} MB"
        return f"{text}; {self.offline}, trying again" if self.offline else text

    def _apply(self, event: dict) -> None:
        kind = event["kind"]
        if kind == "training":
            left = f"{event['seconds_left'] / 60:.0f} min" if event["seconds_left"] >= 100 else ""
            left = left or f"{event['seconds_left']:.0f} s"
            self.stage = f"training epoch {event['epoch']}/{event['epochs']}, {left} left"
        elif kind == "uploading":
            self.stage, self.sent, self.total = "uploading", 0, event["bytes"]
        elif kind == "sent":
            self.sent += event["bytes"]
        elif kind == "reply-sent" and self.stage == "uploading":
            self.stage = "uploaded, waiting for the model"
        elif kind == "evaluating":
            self.stage = "measuring the returned model"
        elif kind == "model":
            accuracy = event["accuracy"]
            measured = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} % on your test images"
            self.stage = f"done: the model has arrived{measured}"
        elif kind == "failed":
            self.stage = f"failed, and the server was informed: {event['reason']}"
        elif kind == "connection":
            self.offline = event["reason"]
