"""Flower's SuperLink and SuperExec under `fedlmg server up`, when the disk is slow."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from fedlmg_server.deployment.patience import BUSY_TIMEOUT_SECONDS, outlive_failures
from fedlmg_server.deployment.supervisor import PATIENTLY
from tests.common.http_server import answering

FLOWERS_DATABASE = """
from fedlmg_server.deployment import patience
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

patience.wait_longer_for_the_database()
store = SqlObjectStore({!r})
store.initialize()
print(*store.query("PRAGMA busy_timeout")[0].values())
"""


def test_the_superlink_waits_longer_for_its_database_than_flower_would(tmp_path: Path):
    script = FLOWERS_DATABASE.format(str(tmp_path / "state.db"))

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.split() == [str(1000 * BUSY_TIMEOUT_SECONDS)], done.stderr


def test_the_superexec_outlives_a_superlink_that_fails():
    with answering(500) as (address, asked):
        command = [*PATIENTLY, "flower-superexec", "--insecure", "--runtime-api-address", address]
        superexec = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(asked) < 2 and superexec.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        code = superexec.poll()
        superexec.kill()
        superexec.wait()

    assert code is None
    assert asked[:2] == 2 * ["/v1/runtime/acquire-task"]


def test_a_refusal_ends_the_superexec():
    request = httpx.Request("POST", "http://superlink/")

    def refused() -> None:
        httpx.Response(403, request=request).raise_for_status()

    with pytest.raises(httpx.HTTPStatusError, match="403"):
        outlive_failures(refused)
