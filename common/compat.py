"""Undocumented parts of Flower and torchvision that client and server both use.

Tried with Flower 1.41.0 and 1.42.0, torchvision 0.29.2. `tests/common/test_compat.py` fails when one of them changes.
"""

from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

QUIET_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Environment variables with which Flower sends no telemetry and does not look for a newer version."""


def accept_weights_without_version(mnasnet: "Module") -> None:
    """Let an MNASNet load weights without torchvision's version number, which safetensors and Flower do not keep.

    torchvision's MNASNet overrides PyTorch's `_load_from_state_dict`, and rejects weights without the number.
    """
    from torch import nn

    plain = MethodType(nn.Module._load_from_state_dict, mnasnet)
    mnasnet._load_from_state_dict = plain  # type: ignore[method-assign]  # that is the purpose
