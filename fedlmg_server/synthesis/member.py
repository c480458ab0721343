"""What one of the processes that `launch.py` starts knows of itself: its arguments, its device and its share."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from common.devices import device_of_process
from common.processes import end_with_parent


@dataclass(frozen=True)
class Member:
    arguments: argparse.Namespace
    """The process's own, with `workspace`, a path."""
    device: torch.device
    rank: int
    world_size: int

    @classmethod
    def of_this_process(cls, parser: argparse.ArgumentParser) -> "Member":
        """Parse the command line, end with the parent process if one is named, and take a device.

        parser: of the arguments behind the workspace.
        """
        parser.add_argument(
            "--with-parent", type=int, metavar="PID", help="end when this process, which starts it, ends"
        )
        arguments = parser.parse_args()
        if arguments.with_parent:
            end_with_parent(arguments.with_parent)
        device = device_of_process(int(os.environ.get("LOCAL_RANK", "0")))
        if device.type == "cpu":
            # Also where it is started by hand: with more, an image's last bits would depend on who draws it.
            torch.set_num_threads(1)
        return cls(arguments, device, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that takes a workspace; the module's docstring describes the process."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    return parser
