"""A private SuperLink for a simulation, which starts and stops with the run."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from common.network import find_free_port
from common.processes import OWN_GROUP, end_processes, find_children
from fedlmg_server.flower.connection import Connection, FlowerError, find_executable, make_environment
from fedlmg_server.flower.health import wait_until_healthy

START_SECONDS, STOP_SECONDS = 60, 10
PRIVATE = "fedlmg"
"""Flower's configuration gives the private SuperLink this name."""


@contextmanager
def private_superlink(home: Path, log_file: Path) -> Iterator[Connection]:
    """Run a SuperLink in simulation mode on a free loopback port, with its state in `home`; stop it at the end.

    Raises
    ------
    FlowerError: the SuperLink does not start.
    """
    port = find_free_port()
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{PRIVATE}"\n[superlink.{PRIVATE}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    command = [
        find_executable("flower-superlink"),
        "--insecure",
        "--simulation",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--disable-runtime-dependency-installation"]
    with open(log_file, "ab") as log:
        process = subprocess.Popen(
            command, env=make_environment(FLWR_HOME=str(home)), stdout=log, stderr=log, **OWN_GROUP
        )
    started: list[psutil.Process] = []
    try:
        if not wait_until_healthy(START_SECONDS, lambda: process.poll() is None, port):
            raise FlowerError(f"Flower's SuperLink did not start: see {log_file}")
        # The SuperExec leads a process group of its own. Ray belongs to that group, which may outlive the SuperLink.
        started = find_children(process.pid)
        yield Connection(PRIVATE, make_environment(FLWR_HOME=str(home)))
    finally:
        end_processes(process, STOP_SECONDS, started)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder. It is deleted at the end, even if a dying process still writes to it."""
    folder = Path(tempfile.mkdtemp(prefix="fedlmg-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
