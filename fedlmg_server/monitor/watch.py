"""`fedlmg watch`: a run as it goes, from its workspace's events alone."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.config import ConfigError
from fedlmg_server.monitor.progress import Events
from fedlmg_server.monitor.text import plain

REFRESH_SECONDS = 0.5
MAX_LINES = 12
"""Clients and losses shown, the newest."""
COLORS = {"answered": "green", "failed": "yellow"}


@dataclass
class Stage:
    """started: seconds since the epoch; seconds: how long it took, None while it runs."""

    started: float
    seconds: float | None = None
    completed: int = 0
    total: int = 0
    unit: str = ""
    first: tuple[float, int] | None = None
    """Time and amount of the first progress: what was there before this run counts for no speed."""
    newest: float = 0.0

    def speed(self) -> float | None:
        """Units a second in this run; None while not known."""
        if self.first is None or self.newest <= self.first[0] or self.completed <= self.first[1]:
            return None
        return (self.completed - self.first[1]) / (self.newest - self.first[0])

    def seconds_left(self) -> float | None:
        speed = self.speed()
        return (self.total - self.completed) / speed if speed and self.seconds is None else None


@dataclass
class State:
    """What the events say so far. end: empty when the run finished, the reason when it failed, None while it runs."""

    stages: dict[str, Stage] = field(default_factory=dict)
    clients: dict[str, tuple[str, str]] = field(default_factory=dict)
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)
    end: str | None = None

    def take(self, events: Iterable[dict]) -> None:
        """Fold new events in, oldest first; a stage that starts again after an end is a new run."""
        for event in events:
            kind = event["kind"]
            if kind == "run":
                self.end = event["reason"] if event["state"] == "failed" else ""
            elif kind == "stage" and event["state"] == "started":
                self.end = None
                self.stages[event["name"]] = Stage(event["time"])
            elif kind == "stage":
                self.stages.setdefault(event["name"], Stage(event["time"])).seconds = event["seconds"]
            elif kind == "progress":
                self._progress(event)
            elif kind == "client":
                self.clients.pop(event["name"], None)
                self.clients[event["name"]] = event["state"], event.get("reason") or ""
            elif kind == "loss":
                self.losses.pop(event["series"], None)
                self.losses[event["series"]] = event["step"], event["value"]

    def _progress(self, event: dict) -> None:
        stage = self.stages.setdefault(event["stage"], Stage(event["time"]))
        stage.completed, stage.total, stage.unit = event["completed"], event["total"], event["unit"]
        stage.first = stage.first or (event["time"], event["completed"])
        stage.newest = event["time"]


def watch(workspace: Path, console: Console) -> None:
    """Show the run until it ends or Ctrl-C; once, where it has ended or the output is no terminal.

    Raises
    ------
    ConfigError: the folder holds no run.
    """
    path = workspace.expanduser() / "events.jsonl"
    if not path.is_file():
        raise ConfigError(f"{workspace} holds no events.jsonl: name the workspace of a run that has started")
    events, state = Events(path), State()
    state.take(events.new())
    if state.end is not None or not console.is_terminal:
        console.print(render(state, time.time()))
        return
    with Live(render(state, time.time()), console=console, auto_refresh=False) as live:
        while state.end is None:
            try:
                time.sleep(REFRESH_SECONDS)
            except KeyboardInterrupt:
                return
            state.take(events.new())
            live.update(render(state, time.time()), refresh=True)


def render(state: State, now: float) -> Group:
    """Three tables and a last line; `now` in seconds since the epoch."""
    parts = [_stages(state, now)]
    if state.clients:
        parts.append(_clients(state))
    if state.losses:
        parts.append(_losses(state))
    if state.end is not None:
        parts.append(Text(f"failed: {state.end}", "red") if state.end else Text("finished", "green"))
    return Group(*parts)


def _stages(state: State, now: float) -> Table:
    table = Table("stage", "", "done", "a second", "seconds", "left", box=box.SIMPLE_HEAD)
    for name, stage in state.stages.items():
        over = stage.seconds is not None or state.end is not None
        bar = ProgressBar(
            max(1, stage.total),
            stage.completed or int(stage.seconds is not None),
            width=24,
            pulse=not (stage.total or over),
        )
        speed, left = stage.speed(), stage.seconds_left()
        table.add_row(
            name,
            bar,
            f"{stage.completed}/{stage.total} {stage.unit}" if stage.total else "",
            f"{speed:.1f}" if speed else "",
            f"{now - stage.started if stage.seconds is None else stage.seconds:.0f}",
            f"{left:.0f} s" if left is not None else "",
        )
    return table


def _clients(state: State) -> Table:
    table = Table("client", "", "", box=box.SIMPLE_HEAD)
    for name in list(state.clients)[-MAX_LINES:]:
        word, reason = state.clients[name]
        table.add_row(_plain(name), f"[{COLORS.get(word, 'white')}]{word}[/]", _plain(reason))
    if (hidden := len(state.clients) - MAX_LINES) > 0:
        table.caption = f"and {hidden} before"
    return table


def _losses(state: State) -> Table:
    table = Table("newest losses", "step", "value", box=box.SIMPLE_HEAD)
    for series in list(state.losses)[-MAX_LINES:]:
        step, value = state.losses[series]
        table.add_row(_plain(series), f"{step:g}", f"{value:.4g}")
    return table


def _plain(text: str) -> str:
    """Text from a client: neither markup nor control characters reach the terminal."""
    return escape(plain(text))
