"""One process of synthesis: every `WORLD_SIZE`-th missing batch of every client, from number `RANK`.

The ServerApp starts one for each GPU, or one of one thread for each processor core. By hand, on one machine or on
several that share the workspace:

    accelerate launch --num_processes 4 -m fedlmg_server.synthesis.worker WORKSPACE

Processes never talk to each other; images are named by seed, so what one leaves undone another draws.
"""

import argparse
import json
import os
from pathlib import Path

import torch

from common.config import Config
from common.upload import Upload, is_whole
from common.workspace import Workspace
from fedlmg_server.diffusion import families
from fedlmg_server.synthesis.draw import draw_client


def run(workspace: Workspace, guided: bool, rank: int, world_size: int, device: torch.device) -> None:
    """Draw this process's share; one classifier in memory at a time."""
    made_with = json.loads((workspace.root / "run.json").read_text())["config"]
    config = Config.from_run_config({**made_with, "workspace": str(workspace.root)})
    backend = families.load(config.synthesis, device)
    for folder in sorted(filter(is_whole, workspace.uploads.iterdir())):
        upload = Upload.load(folder, config.builders)
        draw_client(backend, upload, workspace, config.synthesis, config.seed, guided, (rank, world_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--prompts-only", action="store_true", help="draw the unguided rival's images")
    arguments = parser.parse_args()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    run(Workspace(arguments.workspace.resolve()), not arguments.prompts_only, rank, world_size, device)


if __name__ == "__main__":
    main()
