"""The device on which this machine computes, and its memory."""

import psutil
import torch

from common.processes import num_processors


def limit_threads() -> None:
    """Let PyTorch compute by no more threads than there are processor cores that this process may use. It counts those
    of the machine, whatever the CPU quota of a container."""
    if torch.get_num_threads() > (allowed := num_processors()):
        torch.set_num_threads(allowed)


def default_device() -> torch.device:
    """The machine's accelerator if it has one, otherwise the CPU, which it computes by as many threads as it may."""
    limit_threads()
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def device_of_process(local_rank: int) -> torch.device:
    """The device of process number `local_rank` on this machine; processes take the accelerators in turn."""
    device = default_device()
    if device.type == "cpu":
        return device
    return torch.device(device.type, local_rank % torch.accelerator.device_count())


def reduced_precision(device: torch.device) -> torch.dtype:
    """The dtype of mixed precision: bfloat16 where the device computes in it, else float16 on an accelerator, and
    float32 on a processor."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"cpu": torch.float32, "xpu": torch.bfloat16}.get(device.type, torch.float16)


def measure_free_memory(device: torch.device) -> int:
    """The bytes of free memory on the device, or in the machine if the device does not report its memory."""
    module = torch.get_device_module(device)
    if hasattr(module, "mem_get_info"):
        return int(module.mem_get_info(device)[0])
    return psutil.virtual_memory().available


def release_cached_memory() -> None:
    """Free the accelerator memory that PyTorch keeps for later tensors, so that other programs can use it."""
    device = default_device()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
