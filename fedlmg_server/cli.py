"""`fedlmg`: the server's command line."""

import json
import re
import shutil
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common import model_commands
from common.config import Config, ConfigError
from common.workspace import Workspace
from fedlmg_server import flower
from fedlmg_server.diffusion.pretrain_config import PretrainConfig
from fedlmg_server.progress import Follower
from fedlmg_server.report.table import print_results
from fedlmg_server.versions import versions

LOCAL = "local"
PAIR = re.compile(r"([\w-]+)=('[^']*'|\"[^\"]*\"|\S+)")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
bench = typer.Typer(no_args_is_help=True, help="Measure settings against each other.")
app.add_typer(bench, name="bench")
app.command()(model_commands.predict)
app.command()(model_commands.export)
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
) -> None:
    """Collect one upload from each client, synthesise, distil, report; the same command continues a run."""
    # So that a polite kill, too, stops what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        overrides = read_overrides(config, run_config or [])
        if connection == LOCAL:
            overrides["workspace"] = str(Path(workspace or overrides.get("workspace", "runs/default")).resolve())
            reason = run_locally(overrides)
        else:
            overrides |= {"workspace": workspace} if workspace else {}
            reason = run_remotely(connection, overrides)
    except (ConfigError, flower.FlowerError) as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted: the same command continues"
    if reason:
        console.print(f"[red]The run failed:[/] {escape(reason)}", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def pretrain(
    data: Annotated[str, typer.Option(help="Image folder of public images, one sub-folder a class; or `digits`.")],
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
    except ValueError as error:
        console.print(f"[red]Pretraining failed:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"{out}: {quality.read_as_asked:.1%} of samples are read as asked, KID {quality.kid:.4f}")


@bench.command()
def ablation(
    config: Annotated[Path, typer.Option(help="TOML file: a [variants.NAME] of run config keys for each row.")],
    run: Annotated[list[Path], typer.Option(help="Folder of a finished `fedlmg run`; once for each seed.")],
    out: Annotated[Path, typer.Option(help="Folder for images and figures; the same command continues.")],
) -> None:
    """What each setting of synthesis is worth, on the uploads of finished runs."""
    from fedlmg_server import ablation as study

    try:
        rows = study.run(run, study.read_variants(config), out, console)
    except ConfigError as error:
        console.print(f"[red]The ablation failed:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    study.print_table(rows, console)
    console.print(f"Table: {escape(str(out / 'table.md'))}", soft_wrap=True)


def read_overrides(file: Path | None, texts: list[str]) -> dict:
    """Run config keys of a TOML file, and over them those of `key=value` texts, checked.

    Raises
    ------
    ConfigError: an unreadable file or text, an unknown key or an impossible value.
    """
    overrides: dict = {}
    if file is not None:
        try:
            overrides |= tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"config file {file} cannot be read: {error}") from None
    for text in texts:
        overrides |= parse_pairs(text)
    Config.from_run_config(overrides)
    return overrides


def parse_pairs(text: str) -> dict:
    """`key=value key='text'` as Flower reads it, except that text without blanks needs no quotes."""
    if PAIR.sub("", text).strip():
        raise ConfigError(f'--run-config "{text}" is not of the form "key=value key=\'text\'"')
    pairs: dict = {}
    for key, value in PAIR.findall(text):
        try:
            pairs |= {key: tomllib.loads(f"value = {value}")["value"]}
        except tomllib.TOMLDecodeError:
            pairs |= {key: value}
    return pairs


def run_locally(overrides: dict) -> str:
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
            reason = connection.wait(run_id, follower.poll)
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


def run_remotely(name: str, overrides: dict) -> str:
    """A run on a SuperLink of the user's own; returns why it failed, empty when it did not."""
    connection = flower.Connection(name, flower.environment())
    with flower.temporary_folder() as folder:
        run_id = connection.submit(flower.write_app(folder), overrides)
    console.print(f"Run {run_id} on {name}")
    log = connection.follow_log(run_id)
    try:
        while not (status := connection.status(run_id))[0].startswith("finished"):
            time.sleep(5)
    finally:
        log.terminate()
        log.wait()
    if status[0] != "finished:completed":
        return status[1] or f"Flower says {status[0]}"
    console.print("Finished: the report is in the workspace on the server")
    return ""


if __name__ == "__main__":
    app()
