"""`fedlmg run`: submit a run to Flower, on this machine or another, and follow it to its end."""

import shutil
import sys

from rich.console import Console

from common.config import Config, ConfigError
from common.config.run import ClientsConfig
from common.network import find_unusable_proxy
from common.storage.atomic import write_json
from fedlmg_server.deployment.settings import Deployment
from fedlmg_server.flower import superlink
from fedlmg_server.flower.bundle import write_app
from fedlmg_server.flower.connection import Connection, make_environment
from fedlmg_server.flower.versions import read_versions
from fedlmg_server.monitor.progress import Follower
from fedlmg_server.report.table import print_results
from fedlmg_server.results import read_results
from fedlmg_server.workspace import Workspace

POLL_SECONDS = 5
"""How often a SuperLink on another machine is asked for the run's status, because its workspace cannot be read."""

READ_BY_SHELLS = frozenset(" \t'\"\\$&();<>|*?[]{}`#~!")
"""Ray starts its processes by a shell, and does not quote the interpreter's path."""


def run_locally(overrides: dict, console: Console) -> str:
    """Do a run with virtual clients; returns why it failed, or an empty string if it succeeded.

    Raises
    ------
    ConfigError: the config or the workspace cannot be used, or Ray cannot start this interpreter.
    """
    if READ_BY_SHELLS.intersection(sys.executable):
        raise ConfigError(
            f"virtual clients cannot start, for the path of this Python, '{sys.executable}', has a blank or another "
            "character that a shell reads: make the environment elsewhere, such as by `UV_PROJECT_ENVIRONMENT=~/fedlmg "
            "uv sync`"
        )
    num_clients = Config.from_run_config(overrides).clients.num_clients
    simulation: dict[str, object] = {"num-supernodes": num_clients, "client-resources-num-cpus": 1}
    if num_gpus := _num_gpus():
        simulation["client-resources-num-gpus"] = round(min(1.0, num_gpus / num_clients), 3)
    workspace = _open(overrides)
    log_file = workspace.root / "flower.log"
    with superlink.temporary_folder() as home, superlink.private_superlink(home, log_file) as connection:
        return _run_here(connection, workspace, overrides, console, simulation)


def run_on_server(deployment: Deployment, overrides: dict, console: Console) -> str:
    """Do a run with the clients of the server on this machine.

    Unless `overrides` say otherwise, all registered clients are expected, clients train on their own folders, and the
    workspace is `runs/default` in the server's folder. Each client's key determines its name.

    Returns why the run failed, or an empty string if it succeeded.

    Raises
    ------
    ConfigError: no client is registered, or the config or the workspace cannot be used.
    """
    num_clients = len(deployment.registry.read_clients())
    if not num_clients:
        raise ConfigError(
            f"no client is registered with the server in {deployment.root}: add one with `fedlmg server add-client`"
        )
    ours = {"dataset": "", "num-clients": num_clients, "min-clients": min(num_clients, ClientsConfig().min_clients)}
    ours |= {"client-registry": str(deployment.registry.path), "workspace": str(deployment.runs / "default")}
    overrides = ours | overrides
    workspace = _open(overrides)
    write_json(deployment.last_run, {"workspace": str(workspace.root)})
    return _run_here(deployment.connection, workspace, overrides, console)


def run_remotely(name: str, overrides: dict, console: Console) -> str:
    """Do a run on the SuperLink that the user's Flower configuration calls `name`.

    Returns why the run failed, or an empty string if it succeeded.

    Raises
    ------
    ConfigError: this machine has a proxy that Flower cannot use.
    """
    if sentence := find_unusable_proxy():
        raise ConfigError(sentence)
    connection = Connection(name, make_environment())
    with superlink.temporary_folder() as folder:
        run_id = connection.submit(write_app(folder), overrides)
    console.print(f"Run {run_id} on {name}")
    log = connection.follow_log(run_id)
    try:
        reason = connection.wait_for_end(run_id, poll_seconds=POLL_SECONDS)
    finally:
        log.terminate()
        log.wait()
    if not reason:
        console.print("The run has finished. Its report is in the workspace on the server.")
    return reason


def _open(overrides: dict) -> Workspace:
    """Open the workspace that the config names.

    Raises
    ------
    ConfigError: the config is not valid, the workspace was made with another config, or another run is using it.
    """
    workspace = Workspace.open(Config.from_run_config(overrides), read_versions())
    with workspace.lock():
        return workspace


def _run_here(
    connection: Connection,
    workspace: Workspace,
    overrides: dict,
    console: Console,
    simulation: dict[str, object] | None = None,
) -> str:
    """Submit a run, show the events in its workspace, then show the results.

    Returns why the run failed, or an empty string if it succeeded.

    Raises
    ------
    ConfigError: the run failed because of something that the operator has to change.
    """
    follower = Follower(workspace.events, console)
    with superlink.temporary_folder() as folder:
        run_id = connection.submit(write_app(folder), overrides, simulation)
    with follower:
        reason = connection.wait_for_end(run_id, follower.poll)
    if reason:
        with open(workspace.root / "flower.log", "a", encoding="utf-8") as log:
            log.write(connection.fetch_log(run_id))
        if follower.is_mistake:
            raise ConfigError(reason)
        return reason
    print_results(read_results(workspace.report), workspace.report / "index.html", console)
    return ""


def _num_gpus() -> int:
    """The number of GPUs. Without a driver it is 0, and PyTorch, whose import takes seconds, is not imported."""
    if not shutil.which("nvidia-smi"):
        return 0
    import torch

    return torch.cuda.device_count()
