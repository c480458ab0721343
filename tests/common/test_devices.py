"""Where this machine computes, and how much memory it has left for that."""

import subprocess
import sys

import psutil
import pytest
import torch

from common import devices

CPU = torch.device("cpu")
DENSE, GROUPED = torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 3, groups=4)
FREE_ALL_BUT_THE_LAST = """
import psutil, numpy
from common import devices
{first}
numpy.ones(1_000_000)
blocks = [numpy.ones(1_000_000) for _ in range(20)]
blocks[:-1] = []
print(psutil.Process().memory_info().rss)
"""


@pytest.fixture
def without_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_without_an_accelerator_every_process_computes_on_the_processor(without_accelerator: None):
    assert {devices.device_of_process(rank) for rank in range(3)} == {torch.device("cpu")}


def test_accelerators_are_dealt_out_in_turn(two_gpus: None):
    assert [devices.device_of_process(rank).index for rank in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(("before", "after"), [(3, 2), (1, 1)])
def test_pytorch_computes_by_no_more_threads_than_there_are_processors(
    monkeypatch: pytest.MonkeyPatch, before: int, after: int
):
    threads = torch.get_num_threads()
    monkeypatch.setattr(devices, "num_processors", lambda: 2)
    torch.set_num_threads(before)

    devices.default_device()

    assert torch.get_num_threads() == after
    torch.set_num_threads(threads)


def test_free_memory_of_the_processor_is_less_than_the_machine_has():
    assert 0 < devices.measure_free_memory(torch.device("cpu")) < psutil.virtual_memory().total


def test_a_machine_without_an_accelerator_has_no_cached_memory_to_give_back(without_accelerator: None):
    devices.release_cached_memory()


@pytest.mark.parametrize(
    ("model", "image_size", "instructions", "expected"),
    [
        (DENSE, 224, "avx512_bf16", torch.bfloat16),
        (DENSE, 224, "amx_bf16", torch.bfloat16),
        (DENSE, 224, "avx512_f", torch.float32),
        (DENSE, devices.SMALL, "avx512_bf16", torch.float32),
        (GROUPED, 224, "avx512_bf16", torch.float32),
    ],
)
def test_a_processor_trains_in_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch,
    model: torch.nn.Module,
    image_size: int,
    instructions: str,
    expected: torch.dtype,
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})

    assert devices.training_precision(torch.nn.Sequential(model), image_size, CPU) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's C library can do it")
def test_large_blocks_go_back_to_the_system_when_they_are_freed():
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", FREE_ALL_BUT_THE_LAST.format(first=first)]))
        for first in ("", "devices.return_large_blocks()")
    )

    assert kept - returned > 100e6
