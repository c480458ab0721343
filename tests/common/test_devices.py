"""Where this machine computes, and how much memory it has left for that."""

import subprocess
import sys

import psutil
import pytest
import torch
import torchvision

from common import devices

CPU = torch.device("cpu")
DENSE, GROUPED = torchvision.models.resnet18(num_classes=2), torchvision.models.mobilenet_v3_small(num_classes=2)
OWN = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3))
FREE_ALL_BUT_THE_LAST = """
import numpy, psutil, torch
from common import devices
devices.return_large_blocks(torch.nn.Conv2d(4, 4, 3, groups={groups}), 224, torch.device("cpu"))
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
        (OWN, 224, "avx512_bf16", torch.float32),
    ],
)
def test_a_processor_trains_in_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch,
    model: torch.nn.Module,
    image_size: int,
    instructions: str,
    expected: torch.dtype,
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True}, raising=False)

    assert devices.training_precision(model, image_size, CPU) == expected


def test_a_processor_of_which_pytorch_tells_nothing_trains_in_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

    assert devices.training_precision(DENSE, 224, CPU) == torch.float32


@pytest.mark.parametrize(("image_size", "expected"), [(224, torch.float16), (devices.SMALL, torch.float32)])
def test_an_accelerator_trains_in_the_reduced_precision_that_it_has(image_size: int, expected: torch.dtype):
    assert devices.training_precision(DENSE, image_size, torch.device("mps")) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's C library can do it")
def test_large_blocks_of_a_net_without_grouped_convolutions_go_back_to_the_system_when_they_are_freed():
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", FREE_ALL_BUT_THE_LAST.format(groups=groups)]))
        for groups in (4, 1)
    )

    assert kept - returned > 100e6
