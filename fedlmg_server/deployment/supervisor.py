"""`fedlmg server up`: SuperLink, SuperExec and nginx in the foreground; one that dies is started again."""

import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from fedlmg_server.deployment import proxy
from fedlmg_server.deployment.settings import Deployment, DeploymentError

START_SECONDS, STOP_SECONDS = 60, 15
STEADY_SECONDS = 60
"""A child that lived so long is started again at once when it dies; otherwise the wait doubles."""
LONGEST_WAIT_SECONDS = 30
LOOK_SECONDS = 0.3
PR_SET_PDEATHSIG = 1
PATIENTLY = [sys.executable, "-m", "fedlmg_server.deployment.patience"]


@dataclass
class Child:
    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen = field(init=False)
    started: float = 0.0
    start_at: float | None = None
    """When a dead one is started again; None while it lives."""
    wait: float = 1.0

    def start(self) -> None:
        """In a process group of its own, so that Ctrl-C reaches the supervisor alone."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.started, self.start_at = time.monotonic(), None

    def look(self, say: Callable[[str], None]) -> None:
        """Start it again if it died, after a wait."""
        now = time.monotonic()
        if self.start_at is not None:
            if now >= self.start_at:
                self.start()
        elif (code := self.process.poll()) is not None:
            self.wait = 1.0 if now - self.started > STEADY_SECONDS else min(2 * self.wait, LONGEST_WAIT_SECONDS)
            self.start_at = now + self.wait
            say(f"{self.name} ended with code {code}: it is started again in {self.wait:.0f} s; its log is {self.log}")

    def stop(self) -> None:
        """Politely, then by force; with all that it started."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def up(deployment: Deployment, say: Callable[[str], None]) -> None:
    """Until Ctrl-C or SIGTERM.

    Raises
    ------
    DeploymentError: it runs already, a port is taken, nginx is missing, or a part does not start.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    deployment.logs.mkdir(exist_ok=True)
    with _lock(deployment):
        proxy.write_configuration(deployment)
        for port in (deployment.port, deployment.superlink_port):
            _check_free(port)
        commands = {
            "superlink": superlink_command(deployment),
            "superexec": superexec_command(deployment),
            "nginx": proxy.command(deployment),
        }
        children = [
            Child(name, command, deployment.environment, deployment.logs / f"{name}.log")
            for name, command in commands.items()
        ]
        running: list[Child] = []
        try:
            for child in children:
                child.start()
                running.append(child)
                if child.name == "superlink":
                    _wait_until_healthy(deployment, child)
            time.sleep(1)
            _check_alive(running)
            say(f"The server is up; clients join {deployment.address} with {deployment.authority}")
            while True:
                for child in running:
                    child.look(say)
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            say("Stopping")
        finally:
            # A second Ctrl-C must not leave processes behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            for child in reversed(running):
                child.stop()


def superlink_command(deployment: Deployment) -> list[str]:
    """State in a file and the ServerApp in a process of its own: a run outlives a crash of the SuperLink."""
    return [
        *PATIENTLY,
        "flower-superlink",
        *("--host", "127.0.0.1", "--port", str(deployment.superlink_port)),
        *("--ssl-ca-certfile", str(deployment.authority)),
        *("--ssl-certfile", str(deployment.certificate), "--ssl-keyfile", str(deployment.certificate_key)),
        *("--enable-supernode-auth", "--database", str(deployment.database)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(deployment.superexec_secret)),
    ]


def superexec_command(deployment: Deployment) -> list[str]:
    """Starts ServerApps, with the packages that are installed here."""
    return [
        *PATIENTLY,
        "flower-superexec",
        *("--runtime-api-address", f"127.0.0.1:{deployment.superlink_port}"),
        *("--root-certificates", str(deployment.authority)),
        *("--superexec-auth-secret-file", str(deployment.superexec_secret)),
    ]


def is_healthy(deployment: Deployment) -> bool:
    """Whether the SuperLink answers."""
    url = f"https://localhost:{deployment.superlink_port}/health"
    context = ssl.create_default_context(cafile=str(deployment.authority))
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _wait_until_healthy(deployment: Deployment, child: Child) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(deployment):
        _check_alive([child])
        if time.monotonic() > deadline:
            raise DeploymentError(f"the SuperLink does not answer: see {child.log}")
        time.sleep(LOOK_SECONDS)


def _check_alive(children: list[Child]) -> None:
    for child in children:
        if child.process.poll() is not None:
            lines = child.log.read_text(errors="replace").strip().splitlines()
            raise DeploymentError(f"{child.name} does not start ({lines[-1] if lines else 'no word'}): see {child.log}")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise DeploymentError(f"port {port} cannot be had: {error.strerror}") from None


@contextmanager
def _lock(deployment: Deployment) -> Iterator[None]:
    try:
        held = FileLock(deployment.root / ".lock", timeout=0).acquire()
    except Timeout:
        raise DeploymentError(f"the server of {deployment.root} runs already") from None
    with held:
        yield


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Asks Linux to end this child when the supervisor is killed, so that its ports become free."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
