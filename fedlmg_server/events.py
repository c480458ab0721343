"""The events of a run, which are stored in its workspace; each kind of event is a class in this module."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from common.contracts import Amount, Count
from common.storage.event_log import Event, EventTail


class StageStarted(Event):
    kind: Literal["stage"] = "stage"
    state: Literal["started"] = "started"
    name: str


class StageFinished(Event):
    kind: Literal["stage"] = "stage"
    state: Literal["finished"] = "finished"
    name: str
    seconds: Amount
    images: Count = 0
    """Images that the stage generated."""


class ClientEvent(Event):
    kind: Literal["client"] = "client"
    name: str
    state: Literal["answered", "failed", "quarantined"]
    reason: str = ""
    """Why, in a sentence; empty for a client that answered."""


class PlanMade(Event):
    """How many images the run will generate with each method whose images are not complete yet."""

    kind: Literal["plan"] = "plan"
    images: Count
    classes: Count
    methods: list[str]


class Estimated(Event):
    """How long the synthesis will take, in a sentence."""

    kind: Literal["estimate"] = "estimate"
    sentence: str


class Note(Event):
    """Something that the operator should know, in a sentence."""

    kind: Literal["note"] = "note"
    text: str


class Progress(Event):
    kind: Literal["progress"] = "progress"
    stage: str
    completed: Count
    total: Count
    unit: str
    """What is counted, such as `images`."""


class Loss(Event):
    kind: Literal["loss"] = "loss"
    series: str
    """What the loss belongs to, such as `training, mnist`."""
    step: float
    value: Annotated[float, Field(allow_inf_nan=True)]


class RunFinished(Event):
    kind: Literal["run"] = "run"
    state: Literal["finished"] = "finished"


class RunFailed(Event):
    kind: Literal["run"] = "run"
    state: Literal["failed"] = "failed"
    reason: str
    is_mistake: bool = False
    """Whether the operator has to change something: the config, the workspace or the machine, and not the clients."""


RunEvent = (
    StageStarted | StageFinished | ClientEvent | PlanMade | Estimated | Note | Progress | Loss | RunFinished | RunFailed
)
KINDS: TypeAdapter[RunEvent] = TypeAdapter(
    Annotated[
        Annotated[StageStarted | StageFinished, Field(discriminator="state")]
        | Annotated[RunFinished | RunFailed, Field(discriminator="state")]
        | ClientEvent
        | PlanMade
        | Estimated
        | Note
        | Progress
        | Loss,
        Field(discriminator="kind"),
    ]
)


def follow_events(file: Path, skips_existing: bool = False) -> EventTail[RunEvent]:
    return EventTail(file, KINDS, skips_existing)
