"""Runs an experiment: a `fedlmg run` for each setting and seed, then its baselines and variants; finished rows stay.

OUT/runs/SETTING/seed-N         workspaces of `fedlmg run`
OUT/variants/SETTING/NAME/seed-N  workspaces that share a run's uploads
OUT/rows/SETTING/NAME/seed-N.json  a row each; OUT/rows.csv, table.md and plots/ from all of them
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from common.config import Config, ConfigError
from common.datasets.readers import folders
from common.names import safe_name
from common.storage.atomic import write_json
from common.vision.shares import mean_of_known
from fedlmg_server import pipeline
from fedlmg_server.baselines import methods
from fedlmg_server.baselines.outcome import DoesNotApply, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun, balanced_of
from fedlmg_server.bench import rows
from fedlmg_server.bench.experiment import Experiment
from fedlmg_server.bench.rows import Row
from fedlmg_server.collection.validation import validate_uploads
from fedlmg_server.distillation.aggregate import distil
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.events import RunFailed, RunFinished
from fedlmg_server.flower.versions import read_versions
from fedlmg_server.results import FILE
from fedlmg_server.run import Run
from fedlmg_server.run_record import MAY_CHANGE
from fedlmg_server.synthesis import store
from fedlmg_server.workspace import Workspace

Start = Callable[[dict], str]
"""Runs a whole `fedlmg run` by its run config keys; returns why it failed, empty when it did not."""


def run_experiment(
    experiment: Experiment, out: Path, start: Start, console: Console, runs: Path | None = None
) -> list[Row]:
    """Every missing row; the table is written anew after each run, so that an interrupted grid has one, too.

    runs: folder of the runs, OUT/runs where not given, so that several experiments can share them.

    Raises
    ------
    ConfigError: a run failed; the same command starts there.
    """
    found: list[Row] = []
    for setting, seed in experiment.cells():
        folder = (runs or out / "runs") / safe_name(setting) / f"seed-{seed}"
        keys = experiment.settings[setting] | {"seed": seed, "workspace": str(folder.resolve())}
        config = Config.from_run_config(keys)
        if _needs_comparison(experiment.methods, config):
            keys |= {"compare": True}
            config = Config.from_run_config(keys)
        run = Run(config, Workspace.open(config, read_versions()))
        if not _has_finished(run.workspace) and (reason := start(keys)):
            raise ConfigError(f"the run of setting '{setting}' with seed {seed} failed: {reason}")
        validate_uploads(run)
        cell = Cell(setting, keys, VirtualRun.from_run(run), experiment, out, console)
        found += cell.measure_methods()
        found += cell.measure_variants()
        rows.write(found, experiment.published, out)
    return found


def _has_finished(workspace: Workspace) -> bool:
    """Whether the run measured all that it was asked for. One that failed or was killed leaves results, too."""
    states = [event.state for event in workspace.read_events() if isinstance(event, RunFinished | RunFailed)]
    return states[-1:] == ["finished"] and (workspace.report / FILE).exists()


class Cell:
    """One setting with one seed: a finished run, and the rows made on it."""

    def __init__(self, setting: str, keys: dict, run: VirtualRun, experiment: Experiment, out: Path, console: Console):
        self.setting, self.keys, self.run = setting, keys, run
        self.experiment, self.out, self.console = experiment, out, console
        expected = run.config.clients.num_clients
        missing = expected - len(run.uploads)
        self.note = f"without {missing} of {expected} clients" if missing else ""

    def measure_methods(self) -> list[Row]:
        if not self.experiment.methods:
            return []
        public = _load_public_images(self.experiment.public, self.run.config.training.image_size)
        run = VirtualRun.from_run(self.run, public)
        return [self._row(name, partial(_measure_method, name, run)) for name in self.experiment.methods]

    def measure_variants(self) -> list[Row]:
        return [
            self._row(name, partial(self._measure_variant, name, own), own)
            for name, own in self.experiment.variants.items()
        ]

    def _row(self, name: str, measure: Callable[[], dict], own: dict | None = None) -> Row:
        """Read, or measured and written."""
        path = self.out / "rows" / safe_name(self.setting) / safe_name(name) / f"seed-{self.run.config.seed}.json"
        fingerprint = self._fingerprint(own or {})
        if path.exists() and (content := json.loads(path.read_text(encoding="utf-8")))["made_from"] == fingerprint:
            return Row(**content["row"])
        row = Row(
            **{"setting": self.setting, "method": name, "seed": self.run.config.seed, "note": self.note}
            | {"test_images": {client: len(images) for client, images in self.run.test.items()}}
            | measure()
        )
        write_json(path, {"made_from": fingerprint, "row": asdict(row)})
        accuracy = f"does not apply: {row.note}" if row.accuracy is None else f"{row.accuracy:.1%}"
        self.console.print(escape(f"{self.setting}, seed {row.seed}, {name}: {accuracy}"), highlight=False)
        return row

    def _fingerprint(self, own: dict) -> str:
        """Changes with the settings and the uploads, which say who answered, however long the run waited."""
        settings = Config.from_run_config(self.keys | own).settings()
        keys = {key: value for key, value in settings.items() if key not in MAY_CHANGE}
        content = json.dumps([keys, self.experiment.public, self.run.checksums], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _measure_variant(self, name: str, own: dict) -> dict:
        """Images generated anew from the same uploads, one student distilled on them; the run's own images where the
        variant is the run itself."""
        run = self.run
        if Config.from_run_config(self.keys | own) != run.config:
            folder = self.out / "variants" / safe_name(self.setting) / safe_name(name) / f"seed-{run.config.seed}"
            config = Config.from_run_config(self.keys | own | {"workspace": str(folder.resolve()), "compare": False})
            run = run.sharing_uploads(config)
        pipeline.synthesise(run)
        cost = cost_of_uploads(run)
        with cost.timed("server"):
            synthetic = read_synthetic_set(run)
            model = distil(run, synthetic).model
        cost.num_images = store.count_images(run.workspace)
        cost.download_bytes += bytes_to_every_client(run, model)
        cost.server_seconds += run.workspace.stage_seconds()["synthesis"]
        per_client = run.measure(model)
        return _accuracies(per_client) | asdict(cost) | {"kept": len(synthetic.labels) / cost.num_images}


def _needs_comparison(asked: list[str], config: Config) -> bool:
    """Whether the run itself has to measure some of these methods, besides the model that it returns."""
    return bool(set(asked) & set(methods.NEED_COMPARISON) - {f"fedlmg-{config.distillation.aggregation}"})


def _measure_method(name: str, run: VirtualRun) -> dict:
    try:
        outcome = methods.measure_method(name, run)
    except DoesNotApply as reason:
        return {"note": str(reason)}
    accuracies = _accuracies(outcome.per_client)
    return accuracies | asdict(outcome.cost) | {"attack_success": outcome.attack_success}


def _accuracies(per_client: dict[str, float]) -> dict:
    balanced = balanced_of(per_client)
    return {
        "accuracy": sum(per_client.values()) / len(per_client),
        "per_client": dict(per_client),
        "balanced_accuracy": mean_of_known(balanced.values()),
        "balanced_per_client": balanced,
    }


def _load_public_images(path: str, image_size: int) -> torch.Tensor | None:
    if not path:
        return None
    return torch.cat(
        [split.images.read() for split in folders.load(Path(path), image_size, allow_outside=True).splits.values()]
    )
