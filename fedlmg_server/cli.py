"""`fedlmg`: the server's command line."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common.config import ConfigError
from common.config.overrides import read_overrides
from common.models import commands
from fedlmg_server import runs
from fedlmg_server.bench.commands import bench
from fedlmg_server.deployment.commands import server as server_commands
from fedlmg_server.deployment.settings import Deployment, DeploymentError
from fedlmg_server.diffusion.pretraining.config import PretrainConfig
from fedlmg_server.flower.connection import FlowerError
from fedlmg_server.workspace import Workspace

LOCAL = "local"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(bench, name="bench")
app.add_typer(server_commands, name="server")
app.command()(commands.predict)
app.command()(commands.export)
console = Console()


@app.callback()
def main() -> None:
    """FedLMG: one-shot federated learning with guided diffusion."""


@app.command()
def run(
    connection: Annotated[
        str, typer.Argument(help="SuperLink connection of your Flower configuration; `local` simulates every client.")
    ] = LOCAL,
    config: Annotated[Path | None, typer.Option(help="TOML file of run config keys.")] = None,
    run_config: Annotated[
        list[str] | None, typer.Option(help="Keys over those of --config: \"key=value key='text'\".")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="The run's folder on the server; `local` defaults to runs/default.")
    ] = None,
    server: Annotated[
        Path | None, typer.Option(envvar="FEDLMG_SERVER", help="Folder of `fedlmg server`: run over its clients.")
    ] = None,
) -> None:
    """Collect one upload from each client, synthesise, distil, report; the same command continues a run."""
    # So that a polite kill, too, stops what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        overrides = read_overrides(config, run_config or [])
        here = server is not None or connection == LOCAL
        if here and (chosen := workspace or overrides.get("workspace") or ("" if server else "runs/default")):
            overrides["workspace"] = str(Path(chosen).expanduser().resolve())
        if server and connection != LOCAL:
            raise ConfigError(f"the run is over the clients of {server} or on the SuperLink '{connection}': name one")
        if server:
            reason = runs.run_on_server(Deployment.load(server), overrides, console)
        elif connection == LOCAL:
            reason = runs.run_locally(overrides, console)
        else:
            overrides |= {"workspace": workspace} if workspace else {}
            reason = runs.run_remotely(connection, overrides, console)
    except (ConfigError, DeploymentError, FlowerError) as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted: the same command continues"
    if reason:
        console.print(f"[red]The run failed:[/] {escape(reason)}", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def plan(workspace: Annotated[Path, typer.Argument(help="A run's folder with uploads.")]) -> None:
    """What synthesis will cost: images, bytes, and hours on this machine by a short timed probe. Draws nothing."""
    from common.devices import default_device
    from fedlmg_server.collection import admission
    from fedlmg_server.synthesis import estimate

    try:
        folder, config = Workspace.existing(workspace)
        with folder.lock():
            uploads, _ = admission.admit(folder, config)
        if not uploads:
            raise ConfigError(f"{workspace} holds no fit upload: `fedlmg run` collects them")
        cost = estimate.measure(config, uploads, default_device())
    except ConfigError as error:
        console.print(f"[red]No plan:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(cost.sentence(), soft_wrap=True)


@app.command()
def forget(
    client: Annotated[str, typer.Argument(help="Its name, as the report shows it.")],
    workspace: Annotated[Path, typer.Option(help="The run's folder.")],
) -> None:
    """Remove a client's upload and images, and make the model again without them."""
    from fedlmg_server.forget import forget as remove

    try:
        folder, config = Workspace.existing(workspace)
        with folder.lock():
            remove(client, folder, config)
    except ValueError as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(
        f"{client} is forgotten and the model made again; the run's own command hands it to the other clients",
        soft_wrap=True,
    )


@app.command()
def pretrain(
    data: Annotated[str, typer.Option(help="Image folder of public images, a sub-folder a class; `digits`; `emoji`.")],
    out: Annotated[Path, typer.Option(help="Pipeline folder to write; the same command continues it.")],
    start: Annotated[Path | None, typer.Option(help="Pipeline folder to fine-tune; without it, from scratch.")] = None,
    image_size: Annotated[int, typer.Option(help="Pixels on a side.")] = 32,
    vae_steps: Annotated[int, typer.Option(help="Training steps of the autoencoder.")] = PretrainConfig.vae_steps,
    denoiser_steps: Annotated[int, typer.Option(help="Of the denoiser.")] = PretrainConfig.denoiser_steps,
    mixed_precision: Annotated[str, typer.Option(help="`bf16` on hardware that has it.")] = "no",
    seed: int = 0,
) -> None:
    """Train a small text-to-image pipeline for a domain that no public model knows, and measure it."""
    from fedlmg_server import pretraining

    config = PretrainConfig(
        seed=seed, vae_steps=vae_steps, denoiser_steps=denoiser_steps, mixed_precision=mixed_precision
    )
    try:
        quality = pretraining.run(data, out, config, image_size, start)
    except (ValueError, OSError) as error:
        console.print(f"[red]Pretraining failed:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"{out}: {quality.read_as_asked:.1%} of samples are read as asked, KID {quality.kid:.4f}")


@app.command()
def watch(workspace: Annotated[Path, typer.Argument(help="Folder of a run, finished or under way.")]) -> None:
    """Show a run as it goes: stages, images per second, time left, clients, newest losses."""
    from fedlmg_server.monitor import watch as live

    try:
        live.watch(workspace, console)
    except ConfigError as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
