"""One process of the witness, one of `WORLD_SIZE`; `hearing.py` starts it."""

import argparse
import os
from pathlib import Path

import torch

from common.devices import device_of_process
from common.processes import end_with_parent
from fedlmg_server.diffusion import families
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents
from fedlmg_server.witness.hearing import is_heard
from fedlmg_server.witness.judge import SILENT, hear, load_held_out


def work(run: Run, rank: int, world_size: int) -> None:
    """Judge every `world_size`-th client that was not judged yet, from number `rank`."""
    mine = [upload for number, upload in enumerate(run.uploads) if number % world_size == rank]
    if not (mine := [upload for upload in mine if not is_heard(run, upload)]):
        return
    backend, held_out = families.load_backend(run.config.synthesis, run.device), load_held_out(run)
    for upload in mine:
        try:
            with incidents.drawing(run.workspace, upload.client, 0):
                finding = hear(run, backend, upload, held_out)
        except Exception as error:  # A client's classifier may raise anything.
            print(f"{upload.client}: cannot be judged: {error!r}", flush=True)
            finding = SILENT
        finding.write(run.workspace, upload)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--with-parent", type=int, metavar="PID", help="end when this process, which starts it, ends")
    arguments = parser.parse_args()
    if arguments.with_parent:
        end_with_parent(arguments.with_parent)
    device = device_of_process(int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cpu":
        torch.set_num_threads(1)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    work(Run.reopen(arguments.workspace, device), rank, world_size)


if __name__ == "__main__":
    main()
