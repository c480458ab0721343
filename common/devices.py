"""The device on which this machine computes, and its memory."""

import psutil
import torch


def default_device() -> torch.device:
    """The machine's accelerator if it has one, otherwise the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def device_of_process(local_rank: int) -> torch.device:
    """The device of the process with this number on this machine: accelerators are dealt out in turn."""
    device = default_device()
    if device.type == "cpu":
        return device
    return torch.device(device.type, local_rank % torch.accelerator.device_count())


def measure_free_memory(device: torch.device) -> int:
    """Bytes that a new program can use on the device; on a device that does not tell, those of the machine."""
    module = torch.get_device_module(device)
    if hasattr(module, "mem_get_info"):
        return int(module.mem_get_info(device)[0])
    return psutil.virtual_memory().available


def release_cached_memory() -> None:
    """Give back what PyTorch keeps of an accelerator's memory for later tensors; other programs can then use it."""
    device = default_device()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
