"""Peak memory of the server's collecting process by number of uploads; the last line is JSON, in MB (10**6 bytes).

Every reply is made when it is pulled, as it comes off the wire, and goes to the workspace; what Flower's own connection
holds meanwhile is not counted.

uv run python -m tests.bench.bench_uploads [--megabytes 577] [--clients 3 6]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from flwr.app import Message

from common.config import Config
from common.models.feature_statistics import Moments
from common.upload import Upload, weights_digest
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.flower.compat import act_as_task
from fedlmg_server.workspace import Workspace
from tests.manifests import make_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=577, help="of each upload; 577: VGG-16 in float32")
    parser.add_argument("--clients", type=int, nargs="+", default=[3, 6])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(collect(arguments.clients[0], arguments.megabytes))
        return
    peaks = {}
    for clients in arguments.clients:
        peaks[clients] = measure(clients, arguments.megabytes)
        print(f"{clients} uploads: {peaks[clients]:.0f} MB", flush=True)
    ratio = peaks[arguments.clients[-1]] / peaks[arguments.clients[0]]
    print(json.dumps({"megabytes": arguments.megabytes, "peak": peaks, "last_to_first": round(ratio, 3)}))


def measure(clients: int, megabytes: float) -> float:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.bench.bench_uploads", "--here"]
    command += ["--clients", str(clients), "--megabytes", str(megabytes)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def collect(clients: int, megabytes: float) -> float:
    """Peak resident memory, in MB, of collecting so many uploads."""
    with act_as_task(), tempfile.TemporaryDirectory() as folder:
        keys = {"dataset": "", "num-clients": clients, "min-clients": 1, "workspace": folder}
        config = Config.from_run_config(keys | {"deadline-seconds": 3600.0})
        strategy = FedLMG(config, Workspace.open(config, {}), lambda: None, poll_seconds=0.01, grace_seconds=0.0)
        strategy.collection.run(Line(clients, megabytes))
        assert len(list(Path(folder).glob("uploads/*/manifest.json"))) == clients
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Line:
    """Nodes that answer at once, one upload at a time."""

    def __init__(self, clients: int, megabytes: float) -> None:
        self.clients, self.size, self.asked = clients, int(megabytes * 1e6 / 4), {}

    def get_node_ids(self) -> list[int]:
        return list(range(1, self.clients + 1))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(str(message.metadata.dst_node_id))
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.asked[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [Message(self.upload(name).to_records(), reply_to=self.asked[name]) for name in message_ids]

    def upload(self, name: str) -> Upload:
        arrays = {"weight": torch.full((self.size,), float(name))}
        manifest = make_manifest(f"site-{name}", sha256=weights_digest(arrays))
        return Upload(arrays, {"layer": Moments(torch.zeros(2), torch.ones(2))}, manifest)


if __name__ == "__main__":
    main()
