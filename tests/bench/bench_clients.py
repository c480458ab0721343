"""Seconds and memory of the server by number of clients; the last line is JSON, memory in MB (10**6 bytes).

Each client has uploaded a ResNet-18 of ten classes at 32 pixels, and two images of each class are there. In a process
for each number of clients the server looks at what it holds after each upload, validates all of them, makes the model
(the student is trained for one epoch), and writes the report. Memory is the peak of that process: all of it, and
without the pages of files, which the system takes back when it needs them.

uv run python -m tests.bench.bench_clients [--clients 20 60 180] [--architecture resnet18]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from PIL import Image

from common.config import Config
from common.datasets.embedded.digits import CLASS_NAMES
from common.upload import to_wire
from fedlmg_server.baselines.compare import Measurements
from fedlmg_server.collection.uploads import find_held
from fedlmg_server.collection.validation import validate_uploads
from fedlmg_server.distillation.aggregate import distil
from fedlmg_server.distillation.saved_model import save_model
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.events import StageFinished
from fedlmg_server.report.write import write_report
from fedlmg_server.run import Run
from fedlmg_server.synthesis import scores, store
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 60, 180])
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.clients[0], arguments.architecture)))
        return
    found = {}
    for clients in arguments.clients:
        command = [sys.executable, "-m", "tests.bench.bench_clients", "--here", "--clients", str(clients)]
        command += ["--architecture", arguments.architecture]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[clients] = json.loads(output.splitlines()[-1])
        print(f"{clients} clients: {found[clients]}", flush=True)
    first, last = arguments.clients[0], arguments.clients[-1]
    per_client = {n: found[n]["cpu_seconds"] / n for n in (first, last)}
    print(
        json.dumps({"clients": found, "seconds_a_client_last_to_first": round(per_client[last] / per_client[first], 2)})
    )


def measure(clients: int, architecture: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        run = _prepare(Path(folder), clients, architecture)
        seconds, started = {}, time.process_time()
        with Peak() as peak:
            for name, stage in {
                "look": _look,
                "validate": validate_uploads,
                "distil": _distil,
                "report": _report,
            }.items():
                before = time.process_time()
                stage(run)
                seconds[name] = round(time.process_time() - before, 1)
        return {
            "cpu_seconds": round(time.process_time() - started, 1),
            "stages": seconds,
            "peak": round(peak.all / 1e6),
            "peak_without_files": round(peak.without_files / 1e6),
            "report_megabytes": round((run.workspace.report / "index.html").stat().st_size / 1e6, 2),
        }


def _prepare(folder: Path, clients: int, architecture: str) -> Run:
    keys = {"dataset": "", "warm-start": False, "witness": "off", "images-per-class": 2, "min-confidence": 0.0}
    keys |= {"num-clients": clients, "min-clients": 1, "student-epochs": 1, "teacher-weighting": "uniform"}
    config = Config.from_run_config(keys | {"workspace": str(folder)})
    run = Run(config, Workspace.open(config, {}), torch.device("cpu"))
    upload = make_upload("site", list(CLASS_NAMES), architecture)
    upload = upload.with_arrays({name: to_wire(tensor) for name, tensor in upload.arrays.items()})
    for number in range(clients):
        named = saying(upload, client=f"client-{number:03}", data="folder")
        named.save(run.workspace.upload(named.client))
        planned, target = store.planned_images(run, named), run.image_folder(named)
        for image in planned:
            image.path(target).parent.mkdir(parents=True, exist_ok=True)
            color = (number, len(image.class_name) * 40, image.seed % 256)
            Image.new("RGB", (32, 32), color).save(image.path(target))
        scores.append_scores(target / "scores-0.jsonl", [Score(i.file, i.class_name, 1.0, True) for i in planned])
    return run


def _look(run: Run) -> None:
    """After each upload, once when it is received and twice when the next messages are made."""
    for _ in range(3 * run.config.clients.num_clients):
        find_held(run.workspace)


def _distil(run: Run) -> None:
    save_model(run, distil(run, read_synthetic_set(run)))


def _report(run: Run) -> None:
    run.workspace.log(StageFinished(name="synthesis", seconds=1.0, images=run.num_images))
    write_report(run, {}, {}, {}, Measurements())


STAGES: dict[str, Callable[[Run], object]] = {
    "look": _look,
    "validate": validate_uploads,
    "distil": _distil,
    "report": _report,
}


class Peak(threading.Thread):
    """Peak memory of this process in bytes while a block runs, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.all = self.without_files = 0
        self._is_over = threading.Event()

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(0.1):
            memory = psutil.Process().memory_info()
            self.all = max(self.all, memory.rss)
            self.without_files = max(self.without_files, memory.rss - memory.shared)


if __name__ == "__main__":
    main()
