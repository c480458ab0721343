"""A run's progress in the terminal, with one bar for each stage."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common.storage.json_lines import Tail
from fedlmg_server.monitor.text import make_safe_markup


class Follower:
    """Shows the events that are written after this object was made; a context manager whose `poll` is called often."""

    def __init__(self, events: Path, console: Console) -> None:
        self._events, self._console = Tail(events, skips_existing=True), console
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
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
            if event["kind"] == "run":
                return "" if event["state"] == "finished" else event["reason"]
            self._show(event)
        return None

    def _show(self, event: dict) -> None:
        if event["kind"] == "client":
            reason = f": {event['reason']}" if event.get("reason") else ""
            said = make_safe_markup(f"{event['name']} {event['state']}{reason}")
            self._progress.console.print(f"  {said}", soft_wrap=True)
        elif event["kind"] == "plan" and event["methods"]:
            num_sets = len(event["methods"])
            sets = f", for each of {num_sets} methods" if num_sets > 1 else ""
            self._progress.console.print(f"  plan: {event['images']} images of {event['classes']} classes{sets}")
        elif event["kind"] == "estimate":
            self._progress.console.print(f"  {event['sentence']}", soft_wrap=True)
        elif event["kind"] == "progress":
            amount = f"{event['completed']}/{event['total']} {event['unit']}"
            task = self._task(event["stage"])
            self._progress.update(task, completed=event["completed"], total=event["total"], amount=amount)
        elif event["kind"] == "stage" and event["state"] == "started":
            self._task(event["name"])
        elif event["kind"] == "stage":
            task = self._task(event["name"])
            total = self._progress.tasks[task].total or 1
            self._progress.update(task, completed=total, total=total)
            if not self._console.is_terminal:
                self._console.print(f"{event['name']}: {event['seconds']:.1f} s")

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, amount="")
        return self._tasks[name]
