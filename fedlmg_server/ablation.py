"""`fedlmg bench ablation`: what each setting of synthesis is worth, on the uploads of finished runs.

Every variant draws its own images from the same uploads, distils one student and measures it on the clients' test
images: rows differ by the variant alone. One folder a variant and seed; the same command continues.
"""

import json
import statistics
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from common.config import Config, ConfigError
from common.files import write_bytes, write_json
from common.upload import Upload, load_all
from common.workspace import Workspace, safe_name
from fedlmg_server import pipeline
from fedlmg_server.baselines import compare
from fedlmg_server.distillation import aggregate, synthetic_set
from fedlmg_server.report import plots
from fedlmg_server.synthesis import launch
from fedlmg_server.versions import versions


@dataclass(frozen=True)
class Row:
    """One variant on one run's uploads; accuracy in [0, 1], the mean over the clients' test sets."""

    variant: str
    seed: int
    accuracy: float
    per_client: dict[str, float]
    num_images: int
    kept: float
    """Share of the images whose guiding classifier is confident enough, in [0, 1]."""
    seconds: float
    """Of drawing, with the start of the processes."""


def read_variants(file: Path) -> dict[str, dict]:
    """Run config keys of each `[variants.NAME]`, over the file's top-level keys.

    Raises
    ------
    ConfigError: an unreadable file, no variants, or an unknown key.
    """
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config file {file} cannot be read: {error}") from None
    variants = content.pop("variants", {})
    if not variants:
        raise ConfigError(f"config file {file} has no [variants.NAME]: name at least one")
    merged = {name: content | keys for name, keys in variants.items()}
    for keys in merged.values():
        Config.from_run_config(keys)
    return merged


def run(runs: list[Path], variants: dict[str, dict], out: Path, console: Console) -> list[Row]:
    """Every variant on every run; writes `rows.json`, `table.md` and `accuracy.svg` in `out`.

    Raises
    ------
    ConfigError: a folder that is no finished run of virtual clients.
    """
    rows = []
    for number, (name, root) in enumerate((name, root) for name in variants for root in runs):
        row = _row(name, variants[name], root, out)
        rows.append(row)
        done = f"{number + 1}/{len(variants) * len(runs)}"
        console.print(f"{done} {name}, seed {row.seed}: {row.accuracy:.1%}, {row.seconds:.0f} s", highlight=False)
    write_json(out / "rows.json", [row.__dict__ for row in rows])
    write_bytes(out / "table.md", markdown(rows).encode())
    points = {name: [(seconds, 100 * mean)] for name, mean, _, seconds, _ in summary(rows)}
    write_bytes(out / "accuracy.svg", plots.curves("accuracy, %", points, "seconds of drawing"))
    return rows


def _row(name: str, keys: dict, root: Path, out: Path) -> Row:
    made_with = Workspace(root)
    if not (made_with.report / "results.json").exists():
        raise ConfigError(f"{root} holds no finished run: `fedlmg run --workspace {root}` makes one")
    config = json.loads((root / "run.json").read_text())["config"]
    folder = out / safe_name(name) / f"seed-{config['seed']}"
    config = Config.from_run_config({**config, **keys, "workspace": str(folder), "compare": False})
    finished = folder / "row.json"
    if finished.exists():
        return Row(**json.loads(finished.read_text()))
    workspace = Workspace.open(config, versions())
    if not workspace.uploads.exists():
        workspace.uploads.symlink_to(made_with.uploads.resolve())
    uploads = list(load_all(workspace.uploads, config))
    if not compare.test_sets(config, uploads):
        raise ConfigError(f"{root} is no run of virtual clients: their test images are not at hand")
    pipeline.synthesise(config, workspace, uploads)
    row = _measure(name, config, workspace, uploads)
    write_json(finished, row.__dict__)
    return row


def _measure(name: str, config: Config, workspace: Workspace, uploads: list[Upload]) -> Row:
    device = pipeline.device()
    synthetic = synthetic_set.load(config, workspace, uploads)
    model = aggregate.distil_from(config, uploads, synthetic, device).model
    measured = compare.evaluate(model, config, uploads)
    drawn = launch.num_drawn(workspace)
    seconds = workspace.stage_seconds()["synthesis"]
    kept = len(synthetic.labels) / drawn
    return Row(name, config.seed, measured["accuracy"], measured["per_client"], drawn, kept, seconds)


def summary(rows: list[Row]) -> Iterator[tuple[str, float, float, float, float]]:
    """Variant, mean accuracy, its standard deviation over seeds (0 for one seed), mean seconds, mean share kept."""
    for name in dict.fromkeys(row.variant for row in rows):
        of_name = [row for row in rows if row.variant == name]
        accuracies = [row.accuracy for row in of_name]
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        seconds, kept = (statistics.mean(getattr(row, key) for row in of_name) for key in ("seconds", "kept"))
        yield name, statistics.mean(accuracies), deviation, seconds, kept


def markdown(rows: list[Row]) -> str:
    seeds = sorted({row.seed for row in rows})
    lines = [f"| variant | accuracy, % (seeds {seeds}) | kept, % | seconds |", "|---|---|---|---|"]
    for name, mean, deviation, seconds, kept in summary(rows):
        lines.append(f"| {name} | {100 * mean:.1f} ± {100 * deviation:.1f} | {100 * kept:.0f} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def print_table(rows: list[Row], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for header in ("variant", "accuracy, %", "deviation", "kept, %", "seconds"):
        table.add_column(header, justify="left" if header == "variant" else "right")
    for name, mean, deviation, seconds, kept in summary(rows):
        table.add_row(name, f"{100 * mean:.1f}", f"{100 * deviation:.1f}", f"{100 * kept:.0f}", f"{seconds:.0f}")
    console.print(table)
