"""Undocumented parts of Flower and torchvision that client and server both use.

Tried with Flower 1.41.0 and 1.42.0, torchvision 0.29.2. `tests/common/test_compat.py` fails when one of them changes.
"""

import re
from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

QUIET_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Environment variables with which Flower sends no telemetry and does not look for a newer version."""


LINES_OF_AN_EXIT = 30
"""The most lines that Flower prints about its exit."""


def accept_weights_without_version(mnasnet: "Module") -> None:
    """Let an MNASNet load weights without torchvision's version number, which safetensors and Flower do not keep.

    torchvision's MNASNet overrides PyTorch's `_load_from_state_dict`, and rejects weights without the number.
    """
    from torch import nn

    plain = MethodType(nn.Module._load_from_state_dict, mnasnet)
    mnasnet._load_from_state_dict = plain  # type: ignore[method-assign]  # that is the purpose


def read_exit(log: str) -> tuple[int | None, str]:
    """The exit code at the end of a Flower program's log, and the line that explains it; without one, the last line.

    Flower ends with the status 1 whatever the code, and with a link to its documentation.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()][-LINES_OF_AN_EXIT:]
    for number, line in reversed(list(enumerate(lines))):
        if found := re.search(r"Exit Code: (\d+)", line):
            return int(found[1]), lines[min(number + 1, len(lines) - 1)]
    return None, lines[-1] if lines else "it printed nothing"
