"""What a client is doing, as events in its cache: written by ClientApp and SuperNode, read by `join`."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from common.storage import json_lines


def tell(cache: Path, kind: str, **details: object) -> None:
    """Append one event to `events.jsonl`, a line of JSON with the time in seconds since the epoch.

    A status is worth less than what it speaks of: where it cannot be written, it is left out.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        json_lines.append(cache / "events.jsonl", [{"time": time.time(), "kind": kind, **details}])
    except OSError:
        pass


@dataclass
class Status:
    """The events so far as one line; `poll` reads those that came since."""

    cache: Path
    stage: str = "waiting for the server"
    sent: int = 0
    """Bytes of the present reply that the server has taken."""
    total: int = 0
    """Bytes of the upload; 0 while there is none under way."""
    offline: str = ""
    """Why the server cannot be reached; empty while it can."""
    _offset: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        path = self.cache / "events.jsonl"
        self._offset = path.stat().st_size if path.exists() else 0

    def poll(self) -> str:
        """The line to show."""
        path = self.cache / "events.jsonl"
        if path.exists():
            with open(path, "rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    if (event := json_lines.parse(line)) is not None:
                        self._take(event)
        return self.line()

    def line(self) -> str:
        text = self.stage
        if self.total and self.stage == "uploading":
            text = f"uploading {min(self.sent, self.total) / 1e6:.1f} of {self.total / 1e6:.1f} MB"
        return f"{text}; {self.offline}, trying again" if self.offline else text

    def _take(self, event: dict) -> None:
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
            self.stage = "evaluating the returned model"
        elif kind == "model":
            accuracy = event["accuracy"]
            measured = "" if accuracy is None else f", {100 * accuracy:.1f} % right on your test images"
            self.stage = f"done: the model is here{measured}"
        elif kind == "failed":
            self.stage = f"the server was told: {event['reason']}"
        elif kind == "connection":
            self.offline = event["reason"]
