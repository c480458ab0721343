"""The first section of deploy/README.md, its commands typed into shells as they stand."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.network import ROOT, until
from tests.e2e.test_deployment import NGINX

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NGINX, reason="nginx is not installed")]
STAYS = re.compile(r"server up|client join")
"""Commands that run until interrupted."""


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the first section's code blocks."""
    document = (ROOT / "deploy" / "README.md").read_text()
    section = document.split("\n## ")[1]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, re.M | re.S)


@pytest.fixture
def shells(tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    started: list[subprocess.Popen] = []
    yield started
    for process in reversed(started):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_the_commands_end_with_a_model_on_every_client(tmp_path: Path, shells: list[subprocess.Popen]):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = tmp_path / "shells.log"

    for language, text in blocks():
        lines = [text] if language == "python" else text.splitlines()
        for line in lines:
            command = [sys.executable, "-c", line] if language == "python" else ["bash", "-c", f"exec {line}"]
            with open(log, "ab") as output:
                process = subprocess.Popen(
                    command, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
                )
            if STAYS.search(line):
                shells.append(process)
            else:
                assert process.wait(900) == 0, line + log.read_text()[-3000:]
            if "server up" in line:
                until(lambda: "The server is up" in log.read_text(), "server")

    for client in ("site-a", "site-b"):
        assert (tmp_path / ".cache" / "fedlmg" / client / "aggregated" / "model.json").exists()
