"""Runs an experiment: settings x seeds, each a `fedlmg run`, and on each its rivals and variants; finished rows stay.

OUT/runs/SETTING/seed-N         workspaces of `fedlmg run`
OUT/variants/SETTING/NAME/seed-N  workspaces that share a run's uploads
OUT/rows/SETTING/NAME/seed-N.json  a row each; OUT/rows.csv, table.md and plots/ from all of them
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from common.config import Config, ConfigError
from common.datasets.readers import folders
from common.devices import default_device
from common.names import safe_name
from common.storage.atomic import write_json
from fedlmg_server import pipeline
from fedlmg_server.baselines import compare, rivals
from fedlmg_server.baselines.federation import DoesNotApply, Federation
from fedlmg_server.bench import rows
from fedlmg_server.bench.experiment import Experiment
from fedlmg_server.bench.rows import Row
from fedlmg_server.collection.admission import admit
from fedlmg_server.distillation import aggregate, synthetic_set
from fedlmg_server.flower.versions import read_versions
from fedlmg_server.synthesis import launch
from fedlmg_server.workspace import ELSEWHERE, MAY_CHANGE, Workspace

Run = Callable[[dict], str]
"""Runs a whole `fedlmg run` by its run config keys; returns why it failed, empty when it did not."""


def run(
    experiment: Experiment, out: Path, run_federation: Run, console: Console, runs: Path | None = None
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
        workspace = Workspace.open(config, read_versions())
        if not (workspace.report / "results.json").exists() and (reason := run_federation(keys)):
            raise ConfigError(f"the run of setting '{setting}' with seed {seed} failed: {reason}")
        cell = Cell(setting, keys, config, workspace, experiment, out, console)
        found += cell.measure_methods()
        found += cell.measure_variants()
        rows.write(found, experiment.published, out)
    return found


class Cell:
    """One setting with one seed: a finished run, and the rows made on it."""

    def __init__(
        self,
        setting: str,
        keys: dict,
        config: Config,
        workspace: Workspace,
        experiment: Experiment,
        out: Path,
        console: Console,
    ):
        self.setting, self.keys, self.config, self.workspace = setting, keys, config, workspace
        self.experiment, self.out, self.console = experiment, out, console
        self.uploads, _ = admit(workspace, config)
        if not compare.test_sets(config, self.uploads):
            raise ConfigError(f"{workspace.root} is no run of virtual clients: their test images are not at hand")
        missing = config.federation.num_clients - len(self.uploads)
        self.note = f"without {missing} of {config.federation.num_clients} clients" if missing else ""

    def measure_methods(self) -> list[Row]:
        if not self.experiment.methods:
            return []
        public = _public(self.experiment.public, self.config)
        federation = Federation.of(self.config, self.workspace, self.uploads, default_device(), public)
        return [self._row(name, lambda name=name: _of_method(name, federation)) for name in self.experiment.methods]

    def measure_variants(self) -> list[Row]:
        return [
            self._row(name, lambda name=name, own=own: self._of_variant(name, own), own)
            for name, own in self.experiment.variants.items()
        ]

    def _row(self, name: str, measure: Callable[[], dict], own: dict | None = None) -> Row:
        """Read, or measured and written."""
        path = self.out / "rows" / safe_name(self.setting) / safe_name(name) / f"seed-{self.config.seed}.json"
        signature = self._signature(own or {})
        if path.exists() and (content := json.loads(path.read_text()))["made_from"] == signature:
            return Row(**content["row"])
        row = Row(**{"setting": self.setting, "method": name, "seed": self.config.seed, "note": self.note} | measure())
        write_json(path, {"made_from": signature, "row": asdict(row)})
        accuracy = f"does not apply: {row.note}" if row.accuracy is None else f"{row.accuracy:.1%}"
        self.console.print(escape(f"{self.setting}, seed {row.seed}, {name}: {accuracy}"), highlight=False)
        return row

    def _signature(self, own: dict) -> str:
        """Changes with the settings and the uploads, which say who answered, however long the run waited."""
        keys = {key: value for key, value in (self.keys | own).items() if key not in ELSEWHERE + MAY_CHANGE}
        content = json.dumps([keys, self.experiment.public, aggregate.signature(self.uploads)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _of_variant(self, name: str, own: dict) -> dict:
        """Images drawn anew from the same uploads, one student distilled on them; the run's own images where the
        variant is the run itself."""
        config, workspace = self.config, self.workspace
        if Config.from_run_config(self.keys | own) != self.config:
            folder = self.out / "variants" / safe_name(self.setting) / safe_name(name) / f"seed-{self.config.seed}"
            config = Config.from_run_config(self.keys | own | {"workspace": str(folder.resolve()), "compare": False})
            workspace = Workspace.open(config, read_versions())
            if not workspace.uploads.exists():
                workspace.uploads.symlink_to(self.workspace.uploads.resolve())
        pipeline.synthesise(config, workspace, self.uploads)
        federation = Federation.of(config, workspace, self.uploads, default_device())
        cost = federation.one_exchange()
        with cost.timed("server"):
            synthetic = synthetic_set.load(config, workspace, self.uploads)
            model = aggregate.distil_from(config, self.uploads, synthetic, federation.device).model
        cost.num_images, cost.download_bytes = launch.num_drawn(workspace), federation.sent_back(model)
        cost.server_seconds += workspace.stage_totals()["synthesis"]
        per_client = federation.measure(model)
        return _accuracies(per_client) | asdict(cost) | {"kept": len(synthetic.labels) / cost.num_images}


def _of_method(name: str, federation: Federation) -> dict:
    try:
        outcome = rivals.measure(name, federation)
    except DoesNotApply as reason:
        return {"note": str(reason)}
    return _accuracies(outcome.per_client) | asdict(outcome.cost)


def _accuracies(per_client: dict[str, float]) -> dict:
    return {"accuracy": sum(per_client.values()) / len(per_client), "per_client": per_client}


def _public(path: str, config: Config) -> torch.Tensor | None:
    if not path:
        return None
    splits = folders.load(Path(path), config.training.image_size).splits
    return torch.cat([split.images for split in splits.values()])
