"""The device that this machine computes on."""

import torch


def default_device() -> torch.device:
    """The accelerator where there is one, else the processor."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
