"""The commands of `fedlmg server`, which set up, run and manage the server that clients join."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.network import SERVER_PORT
from common.terminal import OTHER_SIDE, print_failure
from fedlmg_server.collection.registry import RegistryError
from fedlmg_server.deployment.settings import SUPERLINK_PORT, Deployment, DeploymentError
from fedlmg_server.flower.connection import FlowerError

server = typer.Typer(no_args_is_help=True, help="Set up, run and manage the server that clients join.")
console = Console()
Folder = Annotated[Path, typer.Argument(help="Folder that `fedlmg server init` made.", envvar="FEDLMG_SERVER")]
Server = Annotated[
    Path, typer.Option("--server", help="Folder that `fedlmg server init` made.", envvar="FEDLMG_SERVER")
]
HERE = Path(".")


@server.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to create for keys, certificates, settings, logs and runs.")],
    host: Annotated[
        list[str],
        typer.Option(help="DNS name or IP address under which clients reach this machine; may be given repeatedly."),
    ],
    port: Annotated[int, typer.Option(help="Port that clients connect to.")] = SERVER_PORT,
    superlink_port: Annotated[
        int, typer.Option(help="Port of Flower's SuperLink, which listens on loopback only.")
    ] = SUPERLINK_PORT,
) -> None:
    """Set up a server: make a certificate authority, a server certificate, secrets and configuration files."""
    from fedlmg_server.deployment import setup

    try:
        made = setup.create_deployment(folder, host, port, superlink_port)
    except (DeploymentError, OSError) as error:
        raise print_failure(console, error) from None
    _print(
        f"Created the server in {made.root}. Start it with `fedlmg server up {folder}`, and give {made.authority} to "
        "every client"
    )


@server.command()
def up(folder: Folder = HERE) -> None:
    """Run the server until interrupted: SuperLink, SuperExec and nginx. A process that dies is restarted."""
    from fedlmg_server.deployment import supervisor

    try:
        supervisor.run_server(Deployment.load(folder), _print)
    except (DeploymentError, OSError) as error:
        raise print_failure(console, error) from None


@server.command()
def renew(
    folder: Folder = HERE,
    host: Annotated[
        list[str] | None,
        typer.Option(help="DNS name or IP address of this machine; may be given repeatedly. Default: those of before."),
    ] = None,
) -> None:
    """Make a new server certificate. Clients need no new file, because the certificate authority stays the same."""
    from fedlmg_server.deployment import setup

    try:
        made = setup.renew_certificate(Deployment.load(folder), host or ())
    except (DeploymentError, OSError) as error:
        raise print_failure(console, error) from None
    _print(f"Renewed {made.certificate}. To use it, restart `fedlmg server up {folder}`")


@server.command()
def add_client(
    name: Annotated[str, typer.Argument(help="Name of the client in this federation.")],
    key: Annotated[Path, typer.Argument(help="The client's public key file, which `fedlmg-client keygen` made.")],
    folder: Server = HERE,
) -> None:
    """Register a client: allow the owner of a key to join under a name."""
    try:
        deployment = Deployment.load(folder)
        deployment.registry.add(deployment.connection, name, key)
    except (DeploymentError, RegistryError, OSError) as error:
        raise print_failure(console, error) from None
    except FlowerError as error:
        raise print_failure(console, error, status=OTHER_SIDE) from None
    _print(
        f"{name} may join with: "
        f"fedlmg-client join {deployment.address} --ca ca.crt --key KEY --name {name} --data IMAGES"
    )


@server.command()
def remove_client(
    name: Annotated[str, typer.Argument(help="Name under which the client was added.")],
    folder: Server = HERE,
) -> None:
    """Unregister a client, so that it can no longer join. `fedlmg forget` removes its upload from a run."""
    try:
        deployment = Deployment.load(folder)
        deployment.registry.remove(deployment.connection, name)
    except (DeploymentError, RegistryError, OSError) as error:
        raise print_failure(console, error) from None
    except FlowerError as error:
        raise print_failure(console, error, status=OTHER_SIDE) from None
    _print(f"{name} can no longer join")


@server.command()
def status(folder: Folder = HERE) -> None:
    """Show whether the server is up, when its certificate expires, its clients, and the newest run.

    The exit status is 3 if the server is down.
    """
    from fedlmg_server.deployment import certificates
    from fedlmg_server.flower.health import is_healthy

    try:
        deployment = Deployment.load(folder)
        answers = is_healthy(deployment.superlink_port, deployment.authority)
        word = f"up at {deployment.address}" if answers else f"down: start it with `fedlmg server up {folder}`"
        days = certificates.days_until_expiry(deployment.certificate)
        _print(f"{word}; its certificate is valid for {days:.0f} more days")
        nodes = (
            deployment.connection.run_flwr("supernode", "list", deployment.connection.name)["nodes"] if answers else []
        )
        console.print(_make_client_table(deployment, {int(node["node-id"]): node for node in nodes}))
        if workspace := deployment.read_last_run():
            _show_run(workspace)
    except (DeploymentError, RegistryError, OSError) as error:
        raise print_failure(console, error) from None
    except FlowerError as error:
        raise print_failure(console, error, status=OTHER_SIDE) from None
    if not answers:
        raise typer.Exit(OTHER_SIDE)


def _make_client_table(deployment: Deployment, nodes: dict[int, dict]) -> Table:
    """A table of all registered clients; `nodes` maps Flower's node id to what the SuperLink says of the node."""
    table = Table("client", "state", "since", box=box.SIMPLE_HEAD)
    for number, name in deployment.registry.read_names().items():
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
    _print(f"Run in {workspace}: {len(uploads)} uploads ({', '.join(uploads) or 'none yet'})")
    try:
        watch.watch_run(workspace, Console(force_terminal=False))
    except ConfigError as error:
        _print(str(error))


def _print(text: str) -> None:
    console.print(escape(text), soft_wrap=True)
