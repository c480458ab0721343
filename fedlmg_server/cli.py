"""`fedlmg`: the server's command line."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.config import Config, ConfigError
from common.config.node import MAX_MEGAPIXELS
from common.config.overrides import read_overrides
from common.config.run import LARGEST_SEED, tell_contradictions
from common.models import commands
from common.processes import exit_on_sigterm
from common.reading_options import MaxMegapixels
from common.terminal import OTHER_SIDE, print_failure, run_commands
from fedlmg_server import runs
from fedlmg_server.bench.commands import bench
from fedlmg_server.deployment.commands import server as server_commands
from fedlmg_server.deployment.settings import Deployment, DeploymentError
from fedlmg_server.diffusion.pretraining.config import OBJECTIVES, PretrainConfig
from fedlmg_server.flower.connection import FlowerError

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
        str,
        typer.Argument(
            help="Name of a SuperLink connection in your Flower configuration; `local` simulates all clients here."
        ),
    ] = LOCAL,
    config: Annotated[Path | None, typer.Option(help="TOML file with config keys.")] = None,
    run_config: Annotated[
        list[str] | None, typer.Option(help="Config keys that override those of --config, as \"key=value key='text'\".")
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(help="Folder on the server for the run's files. Default for `local`: runs/default."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also measure all baselines, which doubles the time.")
    ] = False,
    trackers: Annotated[
        str | None, typer.Option(help="Experiment trackers, separated by commas, such as `tensorboard,mlflow`.")
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option(
            envvar="FEDLMG_SERVER", help="Folder that `fedlmg server init` made: run with the clients of that server."
        ),
    ] = None,
) -> None:
    """Do a run: collect one upload from each client, synthesise images, distil a model and write a report.

    The same command continues an interrupted run.
    """
    exit_on_sigterm()
    try:
        overrides = _read_overrides(config, run_config)
        overrides |= ({"compare": True} if compare else {}) | ({} if trackers is None else {"trackers": trackers})
        here = server is not None or connection == LOCAL
        if here and (chosen := workspace or overrides.get("workspace") or ("" if server else "runs/default")):
            overrides["workspace"] = str(Path(chosen).expanduser().resolve())
        if server and connection != LOCAL:
            raise ConfigError(
                f"a run uses either the server in {server} or the connection '{connection}', but both are given: "
                "leave out one of them"
            )
        if server:
            reason = runs.run_on_server(Deployment.load(server), overrides, console)
        elif connection == LOCAL:
            reason = runs.run_locally(overrides, console)
        else:
            overrides |= {"workspace": workspace} if workspace else {}
            reason = runs.run_remotely(connection, overrides, console)
    except (ConfigError, DeploymentError, OSError) as error:
        raise print_failure(console, error, "The run failed") from None
    except FlowerError as error:
        reason = str(error)
    except KeyboardInterrupt:
        raise print_failure(console, "it was interrupted: the same command continues it", "The run failed") from None
    if reason:
        raise print_failure(console, reason, "The run failed", OTHER_SIDE)


@app.command()
def plan(
    workspace: Annotated[
        Path | None, typer.Argument(help="Folder of a run that has uploads; without it, the config alone is asked.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with config keys of a run to come.")] = None,
    run_config: Annotated[
        list[str] | None, typer.Option(help="Config keys that override those of --config, as \"key=value key='text'\".")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Classes that each client holds, where the config does not tell.")
    ] = None,
    seconds_per_image: Annotated[
        float | None, typer.Option(min=0, help="Of one process, where it cannot be measured on this machine.")
    ] = None,
) -> None:
    """Estimate the cost of synthesis: number of images, bytes, and hours on this machine.

    The hours come from a short timed test. No image is kept.
    """
    try:
        if workspace is None:
            from fedlmg_server.forecast import forecast

            overrides = _read_overrides(config, run_config)
            lines = forecast(Config.from_run_config(overrides), classes, seconds_per_image).sentences()
        elif config or run_config or classes or seconds_per_image is not None:
            raise ConfigError("a folder of a run has its own config: give the folder alone, or leave it out")
        else:
            lines = [_estimate(workspace)]
    except ConfigError as error:
        raise print_failure(console, error, "No estimate is possible") from None
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _estimate(workspace: Path) -> str:
    from fedlmg_server.collection.validation import validate_uploads
    from fedlmg_server.run import Run
    from fedlmg_server.synthesis import estimate

    run = Run.reopen(workspace)
    with run.workspace.lock():
        validate_uploads(run)
    if not run.uploads:
        raise ConfigError(f"{workspace} holds no valid upload: collect uploads with `fedlmg run` first")
    return estimate.estimate_cost(run).sentence()


@app.command()
def forget(
    client: Annotated[str, typer.Argument(help="Name of the client, as the report shows it.")],
    workspace: Annotated[Path, typer.Option(help="Folder of the run.")],
) -> None:
    """Remove a client from a run: delete what came from it and what tells of it, and make the model again."""
    from fedlmg_server import forget
    from fedlmg_server.run import Run

    try:
        run = Run.reopen(workspace)
        with run.workspace.lock():
            console.print(forget.tell_what_is_left(run, forget.erase_client(run, client)), soft_wrap=True, markup=False)
            forget.make_again(run)
    except ValueError as error:
        raise print_failure(console, error) from None
    console.print(
        f"Removed {client} and made the model again. To send the new model to the other clients, repeat the command "
        "that started the run.",
        soft_wrap=True,
    )


@app.command()
def pretrain(
    data: Annotated[
        str,
        typer.Option(help="Public training images: a folder with a sub-folder for each class, `digits` or `emoji`."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the pipeline to; the same command continues training.")],
    start: Annotated[
        Path | None, typer.Option(help="Folder of a pipeline to fine-tune. Default: train from scratch.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Width and height of images in pixels, a multiple of 8.")] = 32,
    vae_steps: Annotated[int, typer.Option(help="Training steps of the autoencoder.")] = PretrainConfig.vae_steps,
    denoiser_steps: Annotated[
        int, typer.Option(help="Training steps of the denoiser.")
    ] = PretrainConfig.denoiser_steps,
    hours: Annotated[
        float, typer.Option(min=0.0, help="Hours to train, in place of steps; an eighth trains the autoencoder.")
    ] = PretrainConfig.hours,
    batch_parts: Annotated[
        int, typer.Option(min=1, help="Parts of a batch that are trained in turn, where memory is short.")
    ] = PretrainConfig.parts,
    objective: Annotated[
        str, typer.Option(help=f"What the denoiser learns: {' or '.join(OBJECTIVES)} (flow matching).")
    ] = PretrainConfig.objective,
    looks: Annotated[
        str, typer.Option(help="How the look of the images is varied, as the config key `looks` says it.")
    ] = PretrainConfig.looks,
    latent_channels: Annotated[
        int | None, typer.Option(help="Of the autoencoder; more keep finer lines. Default: 4, or those of --start.")
    ] = PretrainConfig.latent_channels,
    perceptual_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of what a small classifier sees in the autoencoder's loss; 0: none.")
    ] = PretrainConfig.perceptual_weight,
    mixed_precision: Annotated[str, typer.Option(help="`no`, or `bf16` on hardware that supports it.")] = "no",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random numbers.")] = 0,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
) -> None:
    """Train and measure a small text-to-image diffusion pipeline for images that no public model can generate."""
    from fedlmg_server import pretraining

    config = PretrainConfig(
        objective=objective,
        seed=seed,
        vae_steps=vae_steps,
        denoiser_steps=denoiser_steps,
        hours=hours,
        parts=batch_parts,
        mixed_precision=mixed_precision,
        latent_channels=latent_channels,
        perceptual_weight=perceptual_weight,
        looks=looks,
    )
    try:
        quality = pretraining.pretrain(data, out, config, image_size, start, max_megapixels)
    except (ValueError, OSError) as error:
        raise print_failure(console, error, "Pretraining failed") from None
    console.print(
        f"{out}: an independent classifier finds the requested class in {quality.read_as_asked:.1%} of the samples; "
        f"KID {quality.kid:.4f}"
    )


@app.command()
def watch(workspace: Annotated[Path, typer.Argument(help="Folder of a run, running or finished.")]) -> None:
    """Show the progress of a run: stages, images per second, time left, clients and newest losses."""
    from fedlmg_server.monitor import watch as live

    try:
        live.watch_run(workspace, console)
    except ConfigError as error:
        raise print_failure(console, error) from None


def _read_overrides(file: Path | None, texts: list[str] | None) -> dict[str, Any]:
    """The keys that the user set; those that contradict their preset are told."""
    overrides = read_overrides(file, texts or [])
    if told := tell_contradictions(overrides):
        console.print(f"Note: {told}", soft_wrap=True, markup=False)
    return overrides


def start() -> None:
    run_commands(app)


if __name__ == "__main__":
    start()
