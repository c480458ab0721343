"""A run's events for experiment trackers (TensorBoard, MLflow, Weights & Biases), through `accelerate`."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from common.config import Config, ConfigError
from fedlmg_server.monitor.progress import Events
from fedlmg_server.workspace import Workspace

POLL_SECONDS = 1.0
OWN_STEPS = ("wandb",)
"""Trackers that count steps themselves: they drop what comes with a smaller step than before."""


@contextmanager
def follow(workspace: Workspace, config: Config) -> Iterator[None]:
    """While the block runs, and at its end, hand new events to the config's trackers; none: nothing happens.

    Raises
    ------
    ConfigError: a tracker is not known or not installed.
    """
    names = [name.strip() for name in config.trackers.split(",") if name.strip()]
    if not names:
        yield
        return
    events = Events(workspace.events, workspace.events.stat().st_size if workspace.events.exists() else 0)
    trackers, over = _open(names, workspace, config), threading.Event()

    def hand_on() -> None:
        while not over.wait(POLL_SECONDS):
            _log(trackers, events)

    thread = threading.Thread(target=hand_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _log(trackers, events)
        for tracker in trackers:
            tracker.finish()


def figures(event: dict) -> tuple[dict[str, float], int | None]:
    """An event's numbers by name, and the step they belong to; no numbers for events without any."""
    if event["kind"] == "loss":
        return {_name("loss", event["series"]): event["value"]}, int(event["step"])
    if event["kind"] == "progress":
        return {_name(event["unit"], event["stage"]): event["completed"]}, event["completed"]
    if event["kind"] == "stage" and event["state"] == "finished":
        return {_name("seconds", event["name"]): event["seconds"]}, 0
    return {}, None


def _name(kind: str, series: str) -> str:
    """`loss/training/mnist` of the series `training, mnist`, in characters that every tracker takes."""
    return re.sub(r"[^\w.\- :/]", "_", f"{kind}/{series}".replace(", ", "/"))


def _open(names: list[str], workspace: Workspace, config: Config) -> list:
    from accelerate import Accelerator
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = sorted(map(str, get_available_trackers()))
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(LOGGER_TYPE_TO_CLASS)
            raise ConfigError(f"config key 'trackers' names '{name}', which is none of {known}")
        if name not in available:
            raise ConfigError(f"config key 'trackers' names '{name}', which is not installed: pip install {name}")
    folder = workspace.root / "trackers"
    folder.mkdir(parents=True, exist_ok=True)
    # Else both write into whatever folder the server was started in.
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
    os.environ.setdefault("WANDB_DIR", str(folder))
    accelerator = Accelerator(log_with=names, project_dir=str(folder))
    try:
        accelerator.init_trackers("fedlmg", config=config.to_run_config())
    except Exception as error:
        raise ConfigError(f"a tracker of 'trackers' = '{config.trackers}' does not start: {error}") from error
    return accelerator.trackers


def _log(trackers: list, events: Events) -> None:
    for event in events.new():
        values, step = figures(event)
        for tracker in list(trackers) if values else ():
            try:
                tracker.log(values, step=None if tracker.name in OWN_STEPS else step)
            except Exception as error:
                # A run that took hours does not end because a server of figures went away.
                print(f"tracker '{tracker.name}' gets no more figures: {error}", flush=True)
                trackers.remove(tracker)
