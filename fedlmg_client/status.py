"""A client's status as events in its cache folder: ClientApp and SuperNode write them, `join` reads them."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from common.contracts import Count, Fraction
from common.storage import event_log
from common.storage.event_log import Event, EventTail


class Trained(Event):
    """An epoch of training has ended."""

    kind: Literal["training"] = "training"
    epoch: Count
    epochs: Count
    seconds_left: float
    name: str = ""
    """What is trained, if it is not the client's own classifier."""


class UploadStarted(Event):
    kind: Literal["uploading"] = "uploading"
    bytes: Count
    """Size of the whole upload."""


class PartSent(Event):
    """The server has received a part of the current reply."""

    kind: Literal["sent"] = "sent"
    bytes: Count


class ReplySent(Event):
    kind: Literal["reply-sent"] = "reply-sent"


class EvaluationStarted(Event):
    kind: Literal["evaluating"] = "evaluating"


class ModelStored(Event):
    kind: Literal["model"] = "model"
    accuracy: Fraction | None
    """Accuracy of the returned model on this client's test images; None without test images."""
    personal: Fraction | None = None
    """Accuracy of the personal model likewise."""


class Failed(Event):
    kind: Literal["failed"] = "failed"
    reason: str


class ConnectionChanged(Event):
    kind: Literal["connection"] = "connection"
    reason: str
    """Why the server cannot be reached; empty if it can."""


StatusEvent = (
    Trained | UploadStarted | PartSent | ReplySent | EvaluationStarted | ModelStored | Failed | ConnectionChanged
)
KINDS: TypeAdapter[StatusEvent] = TypeAdapter(Annotated[StatusEvent, Field(discriminator="kind")])


def append_event(cache: Path, event: StatusEvent) -> None:
    """Append one event to `events.jsonl`. Best effort: failures to write it are ignored."""
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        event_log.append_event(cache / "events.jsonl", event)


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
    _events: EventTail[StatusEvent] = field(init=False)

    def __post_init__(self) -> None:
        self._events = EventTail(self.cache / "events.jsonl", KINDS, skips_existing=True)

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

    def _apply(self, event: StatusEvent) -> None:
        match event:
            case Trained():
                left = f"{event.seconds_left / 60:.0f} min" if event.seconds_left >= 100 else ""
                left = left or f"{event.seconds_left:.0f} s"
                self.stage = (
                    f"training {event.name and f'{event.name}, '}epoch {event.epoch}/{event.epochs}, {left} left"
                )
            case UploadStarted():
                self.stage, self.sent, self.total = "uploading", 0, event.bytes
            case PartSent():
                self.sent += event.bytes
            case ReplySent():
                if self.stage == "uploading":
                    self.stage = "uploaded, waiting for the model"
            case EvaluationStarted():
                self.stage = "measuring the returned model"
            case ModelStored():
                accuracy = event.accuracy
                measured = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} % on your test images"
                personal = "" if event.personal is None else f"; your personal model has {100 * event.personal:.1f} %"
                self.stage = f"done: the model has arrived{measured}{personal}"
            case Failed():
                self.stage = f"failed, and the server was informed: {event.reason}"
            case ConnectionChanged():
                self.offline = event.reason
