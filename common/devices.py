"""The device on which this machine computes, and its memory."""

import ctypes
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil
import torch

from common.processes import num_processors

SMALL = 64
"""Pixels of an image up to which a net is trained in float32: it is too small to gain by mixed precision."""
MMAP_THRESHOLD, LARGE_BLOCK = -3, 1_000_000
"""A parameter of the C library's `mallopt`, and bytes."""


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


def count_workers(most: int) -> int:
    """Processes that compute side by side on this machine: one for each accelerator, else for each processor core, and
    at most `most`."""
    return min(torch.accelerator.device_count() or num_processors(), most)


def reduced_precision(device: torch.device) -> torch.dtype:
    """The dtype of mixed precision: bfloat16 where the device computes in it, else float16 on an accelerator, and
    float32 on a processor."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"cpu": torch.float32, "xpu": torch.bfloat16}.get(device.type, torch.float16)


def training_precision(model: torch.nn.Module, image_size: int, device: torch.device) -> torch.dtype:
    """The dtype in which forward passes are computed while a net learns images of that size.

    A processor that multiplies in bfloat16 trains torchvision's ResNets in half the time and with a third less memory
    (measured). Its nets with grouped convolutions, as MobileNet, would take up to twice the time, and a user's own net
    may use what is not defined in bfloat16.
    """
    if image_size <= SMALL:
        return torch.float32
    if device.type != "cpu":
        return reduced_precision(device)
    # PyTorch before 2.10 does not tell.
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    multiplies = any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))
    is_torchvisions = type(model).__module__.startswith("torchvision.")
    return torch.bfloat16 if multiplies and is_torchvisions and not _has_groups(model) else torch.float32


def return_large_blocks(model: torch.nn.Module, image_size: int, device: torch.device) -> None:
    """Have the C library give a large block back to the system as soon as it is freed, until the process ends, where a
    net learns images that are not small on the processor. Only Linux's C library can do it.

    Else its heap keeps the blocks of a batch, and others do not fit into the holes: a ResNet-18 at 224 px takes up to a
    fifth more memory, and up to a fifth less time. Nets with grouped convolutions would take up to three times as long.
    """
    if sys.platform == "linux" and device.type == "cpu" and image_size > SMALL and not _has_groups(model):
        with suppress(AttributeError, OSError):
            library = ctypes.CDLL(None)
            library.mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
            library.malloc_trim(0)


def _has_groups(model: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Conv2d) and module.groups > 1 for module in model.modules())


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
