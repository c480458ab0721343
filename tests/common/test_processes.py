"""Processes that end with the one that started them."""

import os
import subprocess
import sys

import pytest

WAITING = "import time; from common.processes import end_with_parent; end_with_parent({}); time.sleep({})"


@pytest.mark.parametrize(("is_there", "seconds", "code"), [(True, 1, 0), (False, 60, 1)])
def test_a_process_ends_whose_parent_was_gone_before_it_began(is_there: bool, seconds: int, code: int):
    parent = os.getpid() if is_there else os.getpid() + 1

    done = subprocess.run([sys.executable, "-c", WAITING.format(parent, seconds)], timeout=50)

    assert done.returncode == code
