"""A run's progress in the terminal, with one bar for each stage."""

from pathlib import Path

from rich import progress
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedlmg_server.events import (
    ClientEvent,
    Estimated,
    Note,
    PlanMade,
    Progress,
    RunEvent,
    RunFailed,
    RunFinished,
    StageFinished,
    StageStarted,
    follow_events,
)
from fedlmg_server.monitor.text import make_safe_markup


class Follower:
    """Shows the events that are written after this object was made; a context manager whose `poll` is called often."""

    def __init__(self, events: Path, console: Console) -> None:
        self._events, self._console = follow_events(events, skips_existing=True), console
        self._tasks: dict[str, TaskID] = {}
        self.is_mistake = False
        """Whether the run failed because of something that the operator has to change."""
        self._progress = progress.Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]:>18}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Follower":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def poll(self) -> str | None:
        """Show new events. Return None until the run ends; then why it failed, or an empty string if it succeeded."""
        for event in self._events.read_new():
            if isinstance(event, RunFinished | RunFailed):
                self.is_mistake = isinstance(event, RunFailed) and event.is_mistake
                return event.reason if isinstance(event, RunFailed) else ""
            self._show(event)
        return None

    def _show(self, event: RunEvent) -> None:
        match event:
            case ClientEvent():
                reason = f": {event.reason}" if event.reason else ""
                said = make_safe_markup(f"{event.name} {event.state}{reason}")
                self._progress.console.print(f"  {said}", soft_wrap=True)
            case PlanMade(methods=[_, *others]):
                sets = f", for each of {1 + len(others)} methods" if others else ""
                self._progress.console.print(f"  plan: {event.images} images of {event.classes} classes{sets}")
            case Estimated():
                self._progress.console.print(f"  {event.sentence}", soft_wrap=True)
            case Note():
                self._progress.console.print(f"  {make_safe_markup(event.text)}", soft_wrap=True)
            case Progress():
                amount = f"{event.completed}/{event.total} {event.unit}"
                task = self._task(event.stage)
                self._progress.update(task, completed=event.completed, total=event.total, amount=amount)
            case StageStarted():
                self._task(event.name)
            case StageFinished():
                task = self._task(event.name)
                total = self._progress.tasks[task].total or 1
                self._progress.update(task, completed=total, total=total)
                if not self._console.is_terminal:
                    self._console.print(f"{event.name}: {event.seconds:.1f} s")

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, amount="")
        return self._tasks[name]
