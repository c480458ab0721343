"""Processes that end with the one that started them, and the processors that they may use."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from common import processes

WAITING = "import time; from common.processes import end_with_parent; end_with_parent({}); time.sleep({})"


def _end_one() -> int:
    """The process id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(("is_there", "seconds", "code"), [(True, 1, 0), (False, 60, 1)])
def test_a_process_ends_whose_parent_was_gone_before_it_began(is_there: bool, seconds: int, code: int):
    parent = os.getpid() if is_there else _end_one()

    done = subprocess.run([sys.executable, "-c", WAITING.format(parent, seconds)], timeout=50)

    assert done.returncode == code


def test_a_process_ends_with_a_parent_that_nobody_has_buried():
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child = subprocess.Popen([sys.executable, "-c", WAITING.format(parent.pid, 60)])

    parent.kill()

    assert child.wait(50) == 1
    parent.wait()


@pytest.mark.skipif(not hasattr(psutil.Process, "cpu_affinity"), reason="this system binds no process to a processor")
def test_only_processors_that_this_process_may_use_are_counted():
    program = (
        "import psutil; from common.processes import num_processors; process = psutil.Process(); "
        "process.cpu_affinity(process.cpu_affinity()[:1]); print(num_processors())"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)

    assert done.stdout == "1\n", done.stderr


QUOTAS = {
    "none": ({}, None),
    "two": ({"cpu.max": "200000 100000\n"}, 2),
    "one and a half": ({"cpu.max": "150000 100000\n"}, 2),
    "most": ({"cpu.max": "max 100000\n"}, None),
    "version 1": ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    "version 1, none": ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
}


@pytest.mark.parametrize("quota", QUOTAS)
def test_the_quota_of_a_container_is_read(tmp_path: Path, quota: str):
    files, expected = QUOTAS[quota]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    assert processes.read_quota(tmp_path) == expected


def test_no_more_processors_are_counted_than_the_container_s_quota_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(processes, "CONTROL_GROUP", tmp_path)

    assert processes.num_processors() == 1


TIDYING = """
import time
from common.processes import exit_on_sigterm

exit_on_sigterm()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("tidying", flush=True)
    time.sleep(1)
    print("tidy", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
def test_a_process_that_is_asked_to_end_twice_still_tidies_up():
    process = subprocess.Popen([sys.executable, "-c", TIDYING], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"

    process.terminate()
    assert process.stdout.readline() == "tidying\n"
    process.terminate()

    assert process.communicate(timeout=50)[0] == "tidy\n"
    assert process.returncode == 143
