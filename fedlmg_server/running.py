"""A run submitted to Flower and followed to its end."""

import json
import shutil
import time

from rich.console import Console

from common.config import Config
from common.workspace import Workspace
from fedlmg_server import flower
from fedlmg_server.progress import Follower
from fedlmg_server.report.table import print_results
from fedlmg_server.versions import versions

STATUS_SECONDS = 60
"""Between two questions to Flower whether the run still lives; the workspace tells sooner."""

PATIENCE_SECONDS = 600
"""How long a SuperLink may be away while its run is followed."""


def run_locally(overrides: dict, console: Console) -> str:
    """A run over virtual clients; returns why it failed, empty when it did not."""
    config = Config.from_run_config(overrides)
    workspace = Workspace.open(config, versions())
    with workspace.lock():
        follower = Follower(workspace.events, console)
    num_clients = config.federation.num_clients
    simulation = {"num-supernodes": num_clients, "client-resources-num-cpus": 1}
    if num_gpus := _num_gpus():
        simulation["client-resources-num-gpus"] = round(min(1.0, num_gpus / num_clients), 3)
    log_file = workspace.root / "flower.log"
    with flower.temporary_folder() as folder, flower.private_superlink(folder / "home", log_file) as connection:
        run_id = connection.submit(flower.write_app(folder), overrides, simulation)
        with follower:
            reason = _wait(connection, run_id, follower)
        if reason:
            with open(log_file, "a") as log:
                log.write(connection.log(run_id))
            return reason
    results = json.loads((workspace.report / "results.json").read_text())
    print_results(results, workspace.report / "index.html", console)
    return ""


def _num_gpus() -> int:
    """Without a driver none, and no need to import PyTorch, which takes seconds."""
    if not shutil.which("nvidia-smi"):
        return 0
    import torch

    return torch.cuda.device_count()


def _wait(connection: flower.Connection, run_id: str, follower: Follower) -> str:
    """Why the run failed, empty when it did not: by its own last event, or by Flower when it died without one."""
    next_look = time.monotonic() + STATUS_SECONDS
    while True:
        if (end := follower.poll()) is not None:
            return end
        if time.monotonic() >= next_look:
            status, details = connection.status(run_id)
            if status.startswith("finished"):
                end = follower.poll()
                return end if end is not None else details or f"Flower says {status}"
            next_look = time.monotonic() + STATUS_SECONDS
        time.sleep(0.3)


def run_remotely(name: str, overrides: dict, console: Console) -> str:
    """A run on a SuperLink of the user's own; returns why it failed, empty when it did not."""
    connection = flower.Connection(name, flower.environment())
    with flower.temporary_folder() as folder:
        run_id = connection.submit(flower.write_app(folder), overrides)
    console.print(f"Run {run_id} on {name}")
    log = connection.follow_log(run_id)
    try:
        while not (status := _patient_status(connection, run_id))[0].startswith("finished"):
            time.sleep(5)
    finally:
        log.terminate()
        log.wait()
    if status[0] != "finished:completed":
        return status[1] or f"Flower says {status[0]}"
    console.print("Finished: the report is in the workspace on the server")
    return ""


def _patient_status(connection: flower.Connection, run_id: str) -> tuple[str, str]:
    """A SuperLink that is started again keeps its runs: only one that stays away is an error."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return connection.status(run_id)
        except flower.FlowerError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(STATUS_SECONDS / 12)
