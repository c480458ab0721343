"""Send a run's events to experiment trackers (TensorBoard, MLflow, Weights & Biases) with `accelerate`."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from common.config import Config, ConfigError
from common.storage.event_log import EventTail
from fedlmg_server.events import Loss, Progress, RunEvent, StageFinished, follow_events
from fedlmg_server.flower.compat import list_trackers
from fedlmg_server.workspace import Workspace

POLL_SECONDS = 1.0
OWN_STEPS = ("wandb",)
"""These trackers count steps themselves, because they drop values whose step is smaller than an earlier one."""


@contextmanager
def track_run(workspace: Workspace, config: Config) -> Iterator[None]:
    """Send new events to the trackers that the config names, while the block runs and once more at its end.

    Raises
    ------
    ConfigError: a tracker is unknown or not installed, or does not start.
    """
    names = [name.strip() for name in config.options.trackers.split(",") if name.strip()]
    if not names:
        yield
        return
    events = follow_events(workspace.events, skips_existing=True)
    trackers, over = _start_trackers(names, workspace, config), threading.Event()

    def send_until_over() -> None:
        while not over.wait(POLL_SECONDS):
            _send_new_events(trackers, events)

    thread = threading.Thread(target=send_until_over, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _send_new_events(trackers, events)
        for tracker in trackers:
            tracker.finish()


def extract_numbers(event: RunEvent) -> tuple[dict[str, float], int | None]:
    """The event's numbers by name, and the step that they belong to; an empty dict and None if it has no numbers."""
    match event:
        case Loss():
            return {_name("loss", event.series): event.value}, int(event.step)
        case Progress():
            return {_name(event.unit, event.stage): event.completed}, event.completed
        case StageFinished():
            return {_name("seconds", event.name): event.seconds}, 0
    return {}, None


def _name(kind: str, series: str) -> str:
    """A series' name in characters that every tracker accepts: `training, mnist` becomes `loss/training/mnist`."""
    return re.sub(r"[^\w.\- :/]", "_", f"{kind}/{series}".replace(", ", "/"))


def _start_trackers(names: list[str], workspace: Workspace, config: Config) -> list:
    from accelerate import Accelerator

    known, available = list_trackers()
    for name in names:
        if name not in known:
            raise ConfigError(
                f"config key 'trackers' names '{name}', but known trackers are {', '.join(known)}: choose one of these"
            )
        if name not in available:
            raise ConfigError(f"config key 'trackers' names '{name}', which is not installed: run `pip install {name}`")
    folder = workspace.root / "trackers"
    folder.mkdir(parents=True, exist_ok=True)
    # By default both trackers would write to the current folder.
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
    os.environ.setdefault("WANDB_DIR", str(folder))
    accelerator = Accelerator(log_with=names, project_dir=str(folder))
    try:
        accelerator.init_trackers("fedlmg", config=config.settings())
    except Exception as error:
        raise ConfigError(
            f"a tracker in config key 'trackers' ('{config.options.trackers}') does not start: {error}"
        ) from error
    return accelerator.trackers


def _send_new_events(trackers: list, events: EventTail[RunEvent]) -> None:
    for event in events.read_new():
        values, step = extract_numbers(event)
        for tracker in list(trackers) if values else ():
            try:
                tracker.log(values, step=None if tracker.name in OWN_STEPS else step)
            except Exception as error:
                # A failing tracker must not end a run that took hours.
                print(f"tracker '{tracker.name}' failed and gets no more values: {error}", flush=True)
                trackers.remove(tracker)
