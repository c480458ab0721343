"""`fedlmg server`: the machine that clients join, from its keys and certificates to its processes."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedlmg_server.collection.registry import RegistryError
from fedlmg_server.deployment.settings import PUBLIC_PORT, SUPERLINK_PORT, Deployment, DeploymentError
from fedlmg_server.flower.connection import FlowerError

server = typer.Typer(no_args_is_help=True, help="The server that clients join: set up, run, and look after.")
console = Console()
Folder = Annotated[Path, typer.Argument(help="The server's folder.", envvar="FEDLMG_SERVER")]
Server = Annotated[Path, typer.Option("--server", help="The server's folder.", envvar="FEDLMG_SERVER")]
HERE = Path(".")


@server.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make, for keys, certificates, settings, logs and runs.")],
    host: Annotated[list[str], typer.Option(help="DNS name or address by which clients reach this machine; repeat.")],
    port: Annotated[int, typer.Option(help="That clients use.")] = PUBLIC_PORT,
    superlink_port: Annotated[int, typer.Option(help="Of Flower's SuperLink, on loopback only.")] = SUPERLINK_PORT,
) -> None:
    """Make an authority, the server's certificate, secrets and configuration."""
    from fedlmg_server.deployment import setup

    try:
        made = setup.initialise(folder, host, port, superlink_port)
    except (DeploymentError, OSError) as error:
        raise _failure(error) from None
    _say(f"Made {made.root}: start it with `fedlmg server up {folder}`; give {made.authority} to every client")


@server.command()
def up(folder: Folder = HERE) -> None:
    """Run SuperLink, SuperExec and nginx until interrupted; one that dies is started again."""
    from fedlmg_server.deployment import supervisor

    try:
        supervisor.up(Deployment.load(folder), _say)
    except (DeploymentError, OSError) as error:
        raise _failure(error) from None


@server.command()
def renew(
    folder: Folder = HERE,
    host: Annotated[list[str] | None, typer.Option(help="New names or addresses; the old ones without it.")] = None,
) -> None:
    """Make a new server certificate under the same authority; clients need nothing new."""
    from fedlmg_server.deployment import setup

    try:
        made = setup.renew(Deployment.load(folder), host or ())
    except (DeploymentError, OSError) as error:
        raise _failure(error) from None
    _say(f"Renewed {made.certificate}: restart `fedlmg server up {folder}`")


@server.command()
def add_client(
    name: Annotated[str, typer.Argument(help="Of the client in this federation.")],
    key: Annotated[Path, typer.Argument(help="The public key that `fedlmg-client keygen` made.")],
    folder: Server = HERE,
) -> None:
    """Let the owner of a key take part under a name."""
    try:
        deployment = Deployment.load(folder)
        deployment.registry.add(deployment.connection, name, key)
    except (DeploymentError, RegistryError, FlowerError) as error:
        raise _failure(error) from None
    _say(f"{name} may join: fedlmg-client join {deployment.address} --ca ca.crt --key KEY --name {name} --data IMAGES")


@server.command()
def remove_client(
    name: Annotated[str, typer.Argument(help="As it was added.")],
    folder: Server = HERE,
) -> None:
    """Let a client take part no more; `fedlmg forget` removes what it has sent."""
    try:
        deployment = Deployment.load(folder)
        deployment.registry.remove(deployment.connection, name)
    except (DeploymentError, RegistryError, FlowerError) as error:
        raise _failure(error) from None
    _say(f"{name} can join no more")


@server.command()
def status(folder: Folder = HERE) -> None:
    """Show whether the server answers, its certificate, its clients, and the newest run."""
    from fedlmg_server.deployment import certificates, supervisor

    try:
        deployment = Deployment.load(folder)
        answers = supervisor.is_healthy(deployment)
        word = f"up at {deployment.address}" if answers else f"down: `fedlmg server up {folder}` starts it"
        _say(f"{word}; its certificate is valid for {certificates.days_left(deployment.certificate):.0f} more days")
        nodes = deployment.connection.flwr("supernode", "list", deployment.connection.name)["nodes"] if answers else []
    except (DeploymentError, FlowerError, OSError) as error:
        raise _failure(error) from None
    console.print(_clients(deployment, {int(node["node-id"]): node for node in nodes}))
    if deployment.last_run.exists():
        _show_run(Path(json.loads(deployment.last_run.read_text())["workspace"]))


def _clients(deployment: Deployment, nodes: dict[int, dict]) -> Table:
    """Every registered client; `nodes` by id, as the SuperLink lists them."""
    table = Table("client", "state", "since", box=box.SIMPLE_HEAD)
    for number, name in deployment.registry.names().items():
        node = nodes.get(number, {})
        state = str(node.get("status", "unknown"))
        since = node.get("offline-at" if state == "offline" else "online-at") or ""
        table.add_row(name, state, _local_time(str(since)))
    return table


def _local_time(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return text


def _show_run(workspace: Path) -> None:
    from common.config import ConfigError
    from fedlmg_server.monitor import watch

    uploads = sorted(path.parent.name for path in workspace.glob("uploads/*/manifest.json"))
    _say(f"Run in {workspace}: {len(uploads)} uploads ({', '.join(uploads) or 'none yet'})")
    try:
        watch.watch(workspace, Console(force_terminal=False))
    except ConfigError as error:
        _say(str(error))


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


def _failure(error: Exception) -> typer.Exit:
    console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
    return typer.Exit(1)
