"""`fedlmg watch`: show the progress of a run from the events in its workspace."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.config import ConfigError
from fedlmg_server.events import (
    ClientEvent,
    Loss,
    Note,
    Progress,
    RunEvent,
    RunFailed,
    RunFinished,
    StageFinished,
    StageStarted,
    follow_events,
)
from fedlmg_server.monitor.text import make_printable, make_safe_markup

REFRESH_SECONDS = 0.5
MAX_LINES = 12
"""At most this many clients and losses are shown, the newest ones."""
MAX_NOTES = 3
COLORS = {"answered": "green", "failed": "yellow"}


@dataclass
class Stage:
    """Progress of a stage.

    started: start in seconds since the epoch; seconds: duration of a finished stage, None while the stage runs.
    """

    started: float
    seconds: float | None = None
    completed: int = 0
    total: int = 0
    unit: str = ""
    first: tuple[float, int] | None = None
    """Time and amount of the first progress event. What an earlier run completed does not count for the speed."""
    newest: float = 0.0
    """Time of the newest progress event, in seconds since the epoch."""

    def compute_speed(self) -> float | None:
        """Units a second in this run; None while unknown."""
        if self.first is None or self.newest <= self.first[0] or self.completed <= self.first[1]:
            return None
        return (self.completed - self.first[1]) / (self.newest - self.first[0])

    def estimate_seconds_left(self) -> float | None:
        speed = self.compute_speed()
        return (self.total - self.completed) / speed if speed and self.seconds is None else None


@dataclass
class State:
    """The state of a run after the events so far.

    end: None while the run runs; then why it failed, or an empty string if it succeeded.
    """

    stages: dict[str, Stage] = field(default_factory=dict)
    clients: dict[str, tuple[str, str]] = field(default_factory=dict)
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    end: str | None = None

    def apply(self, events: Iterable[RunEvent]) -> None:
        """Update the state with new events, oldest first. A stage that starts after the run's end begins a new run."""
        for event in events:
            match event:
                case RunFinished():
                    self.end = ""
                case RunFailed():
                    self.end = event.reason
                case StageStarted():
                    self.end = None
                    self.stages[event.name] = Stage(event.time)
                case StageFinished():
                    self.stages.setdefault(event.name, Stage(event.time)).seconds = event.seconds
                case Progress():
                    self._progress(event)
                case ClientEvent():
                    self.clients.pop(event.name, None)
                    self.clients[event.name] = event.state, event.reason
                case Note():
                    self.notes.append(event.text)
                case Loss():
                    self.losses.pop(event.series, None)
                    self.losses[event.series] = event.step, event.value

    def _progress(self, event: Progress) -> None:
        stage = self.stages.setdefault(event.stage, Stage(event.time))
        stage.completed, stage.total, stage.unit = event.completed, event.total, event.unit
        stage.first = stage.first or (event.time, event.completed)
        stage.newest = event.time


def watch_run(workspace: Path, console: Console) -> None:
    """Show the run until it ends or Ctrl-C is pressed.

    If the run has ended already, or the output is not a terminal, the state is printed once.

    Raises
    ------
    ConfigError: the folder holds no run.
    """
    path = workspace.expanduser() / "events.jsonl"
    if not path.is_file():
        raise ConfigError(f"{workspace} holds no events.jsonl: name the workspace of a run that has started")
    events, state = follow_events(path), State()
    state.apply(events.read_new())
    if state.end is not None or not console.is_terminal:
        console.print(render(state, time.time()))
        return
    with Live(render(state, time.time()), console=console, auto_refresh=False) as live:
        while state.end is None:
            try:
                time.sleep(REFRESH_SECONDS)
            except KeyboardInterrupt:
                return
            state.apply(events.read_new())
            live.update(render(state, time.time()), refresh=True)


def render(state: State, now: float) -> Group:
    """Tables of stages, clients and losses, the newest notes, and how the run ended; `now`: seconds since the epoch."""
    parts: list[RenderableType] = [_make_stage_table(state, now)]
    if state.clients:
        parts.append(_make_client_table(state))
    if state.losses:
        parts.append(_make_loss_table(state))
    parts += [Text(make_printable(note)) for note in state.notes[-MAX_NOTES:]]
    if state.end is not None:
        parts.append(Text(f"failed: {state.end}", "red") if state.end else Text("finished", "green"))
    return Group(*parts)


def _make_stage_table(state: State, now: float) -> Table:
    table = Table("stage", "", "done", "a second", "seconds", "left", box=box.SIMPLE_HEAD)
    for name, stage in state.stages.items():
        over = stage.seconds is not None or state.end is not None
        bar = ProgressBar(
            max(1, stage.total),
            stage.completed or int(stage.seconds is not None),
            width=24,
            pulse=not (stage.total or over),
        )
        speed, left = stage.compute_speed(), stage.estimate_seconds_left()
        table.add_row(
            name,
            bar,
            f"{stage.completed}/{stage.total} {stage.unit}" if stage.total else "",
            f"{speed:.1f}" if speed else "",
            f"{now - stage.started if stage.seconds is None else stage.seconds:.0f}",
            f"{left:.0f} s" if left is not None else "",
        )
    return table


def _make_client_table(state: State) -> Table:
    table = Table("client", "", "", box=box.SIMPLE_HEAD)
    for name in list(state.clients)[-MAX_LINES:]:
        word, reason = state.clients[name]
        table.add_row(make_safe_markup(name), f"[{COLORS.get(word, 'white')}]{word}[/]", make_safe_markup(reason))
    if (hidden := len(state.clients) - MAX_LINES) > 0:
        table.caption = f"and {hidden} more"
    return table


def _make_loss_table(state: State) -> Table:
    table = Table("newest losses", "step", "value", box=box.SIMPLE_HEAD)
    for series in list(state.losses)[-MAX_LINES:]:
        step, value = state.losses[series]
        table.add_row(make_safe_markup(series), f"{step:g}", f"{value:.4g}")
    return table
