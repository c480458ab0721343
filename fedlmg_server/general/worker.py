"""One process that generates unguided general images, one of `WORLD_SIZE`; `unguided.py` starts it."""

import argparse
import os
from pathlib import Path

import torch

from common.devices import device_of_process
from common.processes import end_with_parent
from fedlmg_server.diffusion import families
from fedlmg_server.general.unguided import Plan
from fedlmg_server.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("folder", type=Path, help="folder of the images, which names their classes")
    parser.add_argument("--with-parent", type=int, metavar="PID", help="end when this process, which starts it, ends")
    arguments = parser.parse_args()
    if arguments.with_parent:
        end_with_parent(arguments.with_parent)
    device = device_of_process(int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cpu":
        torch.set_num_threads(1)
    run = Run.reopen(arguments.workspace, device)
    backend = families.load_backend(run.config.synthesis, device)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    Plan.of_folder(run, arguments.folder).work(backend, rank, world_size)


if __name__ == "__main__":
    main()
