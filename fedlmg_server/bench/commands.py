"""`fedlmg bench`: methods and settings against each other."""

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from common.processes import exit_on_sigterm
from common.terminal import OTHER_SIDE, print_failure
from fedlmg_server.flower.connection import FlowerError
from fedlmg_server.runs import run_locally

EXPERIMENTS = Path("deploy/experiments")


class ByFile(typer.core.TyperGroup):
    """`bench paper/nico-common.toml` stands for `bench paper deploy/experiments/paper/nico-common.toml`."""

    def resolve_command(self, ctx, args: list[str]):
        return super().resolve_command(ctx, ["paper", *args] if args[0].endswith(".toml") else args)


bench = typer.Typer(cls=ByFile, no_args_is_help=True, help="Measure methods and settings against each other.")
console = Console()

Out = Annotated[Path, typer.Option(help="Folder for runs, rows, table and plots; the same command continues.")]
Data = Annotated[Path | None, typer.Option(help="Folder that stands for {data} in the file.")]
Runs = Annotated[Path | None, typer.Option(help="Folder of the runs, to share them between benchmarks; OUT/runs.")]
Smoke = Annotated[bool, typer.Option(help="Small made-up data and an untrained diffusion model: minutes, no meaning.")]


@bench.command()
def baselines(
    config: Annotated[Path, typer.Option(help="Experiment file.")] = EXPERIMENTS / "baselines.toml",
    out: Out = Path("runs/baselines"),
    data: Data = None,
    runs: Runs = None,
    smoke: Smoke = False,
) -> None:
    """Measure every baseline on the same uploads, data and seeds."""
    study(config, out, data, runs, smoke)


@bench.command()
def ablation(
    config: Annotated[Path, typer.Option(help="Experiment file.")] = EXPERIMENTS / "ablation.toml",
    out: Out = Path("runs/ablation"),
    runs: Runs = None,
    smoke: Smoke = False,
) -> None:
    """What each setting of synthesis is worth, on the same uploads."""
    study(config, out, runs=runs, smoke=smoke)


@bench.command()
def paper(
    config: Annotated[
        Path, typer.Argument(help="Experiment file, such as paper/nico-common.toml, here or in deploy/experiments.")
    ],
    out: Out = Path("runs/paper"),
    data: Data = None,
    runs: Runs = None,
    smoke: Smoke = False,
) -> None:
    """An experiment on data of your own, with the paper's figures beside ours."""
    study(config if config.exists() else EXPERIMENTS / config, out / config.stem, data, runs, smoke)


Finished = Annotated[list[Path], typer.Argument(help="Folders of finished runs of virtual clients, one a seed.")]


@bench.command()
def images(runs: Finished, out: Out = Path("runs/images")) -> None:
    """How good synthetic images are, by client and class, against real ones."""
    from fedlmg_server.evaluation import image_quality

    examine(runs, image_quality, out / "images.md")


@bench.command()
def drift(runs: Finished, out: Out = Path("runs/drift")) -> None:
    """What the models read once the clients' test images have changed."""
    from fedlmg_server.evaluation import drift

    examine(runs, drift, out / "drift.md")


@bench.command()
def strength(runs: Finished, out: Out = Path("runs/strength")) -> None:
    """What each client's classifier cost, how strong it is, and how good the images are that it guided."""
    from fedlmg_server.evaluation import strength

    examine(runs, strength, out / "strength.md")


def examine(runs: list[Path], by: ModuleType, table: Path) -> None:
    """All that `by.measure` finds in finished runs, written by `by.write` after each; the table ends in `table`."""
    from fedlmg_server.baselines.virtual_run import VirtualRun

    rows: list = []
    try:
        for folder in track(runs, "measuring", console=console):
            rows += by.measure(VirtualRun.reopen(folder))
            by.write(rows, table.parent)
            console.print(f"{folder}: measured", highlight=False)
    except (ValueError, OSError) as error:
        raise print_failure(console, error, "The benchmark stopped") from None
    console.print(f"{len(rows)} rows: {escape(str(table))}", soft_wrap=True)


def study(config: Path, out: Path, data: Path | None = None, runs: Path | None = None, smoke: bool = False) -> None:
    """Run an experiment file's whole grid; its table ends in OUT/table.md."""
    from fedlmg_server.bench import experiment, grid
    from fedlmg_server.bench import smoke as stand_ins

    exit_on_sigterm()
    try:
        if smoke:
            out = out / "smoke"
            data = stand_ins.data(experiment.read(config, out).layout, out / "data")
        asked = experiment.read(config, data)
        if smoke:
            asked = stand_ins.shrink(asked, out / "pipeline")
        rows = grid.run_experiment(asked, out, partial(run_locally, console=console), console, runs)
    except (ValueError, OSError) as error:
        raise print_failure(console, error, "The benchmark stopped") from None
    except FlowerError as error:
        raise print_failure(console, error, "The benchmark stopped", OTHER_SIDE) from None
    console.print(f"{len(rows)} rows: {escape(str(out / 'table.md'))}", soft_wrap=True)
