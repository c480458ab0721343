"""Whom the witness accuses: honest and mislabelled virtual clients of every architecture; the last line is JSON.

Each client trains a net from the general model of its architecture (`start`), or one from scratch (`scratch`). A net
from a start is trained with right labels, with all labels rotated by one, and with the first two classes swapped. For
one from scratch the names of its answers are exchanged instead, which is the same: every rotation, and every swap.

uv run python -m tests.bench.bench_witness --out FOLDER [--set dataset='"emoji"'] [--seeds 0 1 2]
  [--architectures small_vit small_mlp] [--nets start scratch] [--labels right]
"""

import argparse
import json
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Self

import torch

from common.clients.data import ClientData, virtual_data
from common.clients.virtual import name_client
from common.config import Config
from common.datasets.labeled_images import LabeledView
from common.models.small import SMALL, SMALL_OF_ONE_SIZE
from common.start import Start
from common.upload import Upload
from fedlmg_client import plan, training
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.flower.versions import read_versions
from fedlmg_server.general.starts import make_start
from fedlmg_server.run import Run
from fedlmg_server.witness.judge import hear, load_held_out, read_own, show_any_look
from fedlmg_server.witness.styled import draw_styled
from fedlmg_server.witness.verdict import confirm, judge_reading
from fedlmg_server.workspace import Workspace

CPU = torch.device("cpu")
LABELS = ("right", "rotated", "swapped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of trained nets; the same command continues")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of the run, as in TOML")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the clients")
    parser.add_argument("--architectures", nargs="+", default=[*SMALL, *SMALL_OF_ONE_SIZE])
    parser.add_argument("--nets", nargs="+", choices=("start", "scratch"), default=["start", "scratch"])
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=LABELS, help="of nets that have a start")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keys = tomllib.loads("\n".join(arguments.set)) | {"workspace": str(arguments.out / "run"), "upload": "own"}
    court = Court.open(Config.from_run_config(keys), arguments.labels)
    counts: dict[str, Counter] = {}
    for architecture in arguments.architectures:
        start = make_start(court.run, [architecture]) if "start" in arguments.nets else None
        for seed in arguments.seeds:
            config = replace(court.run.config, seed=seed)
            for index in range(config.clients.num_clients):
                data = virtual_data(name_client(index, config), index, config)
                said: Counter = Counter()
                if start and architecture in start.models:
                    said.update(f"start, {each}" for each in court.hear_started(data, architecture, seed, start))
                if "scratch" in arguments.nets:
                    said.update(f"scratch, {each}" for each in court.hear_untaught(data, architecture, seed))
                counts.setdefault(architecture, Counter()).update(said)
                print(f"{architecture}, {data.name}, seed {seed}: {dict(said)}", flush=True)
    print(json.dumps({architecture: dict(count) for architecture, count in counts.items()}))


@dataclass(frozen=True)
class Court:
    """A run whose uploads are judged; each method says a kind of labels and the verdict on them."""

    run: Run
    backend: DiffusionBackend
    held_out: LabeledView | None
    labels: Collection[str]

    @classmethod
    def open(cls, config: Config, labels: Collection[str]) -> Self:
        run = Run(config, Workspace.open(config, read_versions()), CPU)
        indices = range(config.clients.num_clients)
        names = [virtual_data(name_client(index, config), index, config).class_names for index in indices]
        run.workspace.fix_class_names(list(dict.fromkeys(name for each in names for name in each)))
        return cls(run, opening.load_backend(config.synthesis, CPU), load_held_out(run), labels)

    def train(self, data: ClientData, architecture: str, seed: int, start: Start | None = None) -> Upload:
        nets, looks = self.run.workspace.root.parent / "nets", self.run.config.general.looks
        settings = self.run.config.training
        return training.train(data, architecture, settings, seed, nets, CPU, start=start, looks=looks)

    def hear_started(self, data: ClientData, architecture: str, seed: int, start: Start) -> Iterator[str]:
        """A net that was trained from the general model, with each kind of labels."""
        own = plan.relabel(data, start, self.run.config)
        count = len(own.class_names)
        orders = {"right": list(range(count)), "rotated": _rotation(count, 1), "swapped": _swap(count, 0, 1)}
        for name in self.labels:
            upload = self.train(_relabel(own, name, orders[name]), architecture, seed, start)
            yield f"{name}: {hear(self.run, self.backend, upload, self.held_out).verdict.state}"

    def hear_untaught(self, data: ClientData, architecture: str, seed: int) -> Iterator[str]:
        """A net that was trained on the client's images alone, with the names of its answers exchanged."""
        upload = self.train(data, architecture, seed)
        if (drawn := draw_styled(self.backend, self.run, upload)) is None:
            yield "right: unknown"
            return
        images, labels = drawn
        others, shown = show_any_look(self.backend, self.run, upload, self.held_out)
        log_p, log_others = (read_own(self.run, upload, each) for each in (images, others))
        names = upload.held_class_names
        count = len(names)
        orders = [("right", list(range(count)))]
        orders += [("rotated", _rotation(count, by)) for by in range(1, count)]
        orders += [("swapped", _swap(count, *pair)) for pair in combinations(range(count), 2)]
        for name, order in orders:
            verdict = judge_reading(log_p[:, order], labels, names)
            if verdict.state == "mislabelled":
                verdict = confirm(verdict, log_others[:, order], shown, names)
            yield f"{name}: {verdict.state}"


def _relabel(data: ClientData, labels: str, order: list[int]) -> ClientData:
    """The same images, those of class i under the name of class `order[i]`."""
    new = torch.tensor(order)
    parts = {
        name: part.with_labels(new[part.labels]) for name in ("train", "validation") if (part := getattr(data, name))
    }
    return replace(data, **parts, fingerprint=f"{data.fingerprint} {labels}")


def _rotation(count: int, by: int) -> list[int]:
    return [(label + by) % count for label in range(count)]


def _swap(count: int, first: int, second: int) -> list[int]:
    order = list(range(count))
    order[first], order[second] = second, first
    return order


if __name__ == "__main__":
    main()
