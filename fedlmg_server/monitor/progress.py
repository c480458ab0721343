"""A run's events, read as they are written; and its progress in the terminal, a bar for each stage."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common.storage import json_lines
from fedlmg_server.monitor.text import plain


class Events:
    """The events of a workspace's file from `offset` bytes on."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._offset = path, offset

    def new(self) -> Iterator[dict]:
        """Those not yet given out; a line still being written waits for the next call."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if (event := json_lines.parse(line)) is not None:
                    yield event


class Follower:
    """Shows the events written after it was made; use as a context manager, and call `poll` every now and then."""

    def __init__(self, events: Path, console: Console) -> None:
        self._events, self._console = Events(events, events.stat().st_size if events.exists() else 0), console
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
        """Show what is new; at the run's end why it failed, empty when it did not, until then None."""
        for event in self._events.new():
            if event["kind"] == "run":
                return "" if event["state"] == "finished" else event["reason"]
            self._show(event)
        return None

    def _show(self, event: dict) -> None:
        if event["kind"] == "client":
            reason = f": {event['reason']}" if event.get("reason") else ""
            said = escape(plain(f"{event['name']} {event['state']}{reason}"))
            self._progress.console.print(f"  {said}", soft_wrap=True)
        elif event["kind"] == "plan" and event["methods"]:
            what = " and as many unguided" if len(event["methods"]) > 1 else ""
            self._progress.console.print(f"  plan: {event['images']} images of {event['classes']} classes{what}")
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
