"""`fedlmg server up`: run SuperLink, SuperExec and nginx in the foreground, and restart a process that dies."""

import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from common.compat import read_exit
from common.network import has_ipv6
from common.processes import OWN_GROUP, end_processes
from fedlmg_server.deployment import proxy
from fedlmg_server.deployment.settings import Deployment, DeploymentError
from fedlmg_server.flower.health import wait_until_healthy

START_SECONDS, STOP_SECONDS = 60, 15
STEADY_SECONDS = 60
"""If a process dies that has lived for this long, it is restarted after 1 s; otherwise the pause doubles."""
LONGEST_WAIT_SECONDS = 30
POLL_SECONDS = 0.3
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
    """When a dead process will be restarted (monotonic seconds); None while the process lives."""
    wait: float = 1.0

    def start(self) -> None:
        """Start the process in a process group of its own, so that Ctrl-C reaches the supervisor only."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **OWN_GROUP,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.started, self.start_at = time.monotonic(), None

    def restart_if_dead(self, report: Callable[[str], None]) -> None:
        """If the process died, report that, and restart it after a pause; call this method again and again."""
        now = time.monotonic()
        if self.start_at is not None:
            if now >= self.start_at:
                self.start()
        elif (code := self.process.poll()) is not None:
            self.wait = 1.0 if now - self.started > STEADY_SECONDS else min(2 * self.wait, LONGEST_WAIT_SECONDS)
            self.start_at = now + self.wait
            why = f"{self.name} ended with code {code} ({self.read_reason()})"
            report(f"{why} and restarts in {self.wait:.0f} s; its log is {self.log}")

    def read_reason(self) -> str:
        """Why the process ended, from the end of its log."""
        return read_exit(self.log.read_text(encoding="utf-8", errors="replace"))[1]

    def stop(self) -> None:
        """End the process, and all processes that it started."""
        end_processes(self.process, STOP_SECONDS)


def run_server(deployment: Deployment, report: Callable[[str], None]) -> None:
    """Run the deployment's processes until Ctrl-C or SIGTERM; `report` shows a message to the operator.

    Raises
    ------
    DeploymentError: the server runs already, a port is in use, nginx is not installed, or a process does not start.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    deployment.logs.mkdir(exist_ok=True)
    with _lock(deployment):
        proxy.write_configuration(deployment)
        for port in (deployment.port, deployment.superlink_port):
            check_free(port)
        commands = {
            "superlink": superlink_command(deployment),
            "superexec": superexec_command(deployment),
            "nginx": proxy.nginx_command(deployment),
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
                    _wait_for_superlink(deployment, child)
            time.sleep(1)
            _check_alive(running)
            report(f"The server is up; clients join {deployment.address} with certificate {deployment.authority}")
            while True:
                for child in running:
                    child.restart_if_dead(report)
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            report("Stopping")
        finally:
            # A second Ctrl-C must not interrupt the shutdown.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            for child in reversed(running):
                child.stop()


def superlink_command(deployment: Deployment) -> list[str]:
    """The SuperLink's command: state in a file, ServerApps in separate processes, so that a run survives a crash."""
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
    """The command of the SuperExec, which starts ServerApps with the packages that are installed here."""
    return [
        *PATIENTLY,
        "flower-superexec",
        *("--runtime-api-address", f"127.0.0.1:{deployment.superlink_port}"),
        *("--root-certificates", str(deployment.authority)),
        *("--superexec-auth-secret-file", str(deployment.superexec_secret)),
    ]


def _wait_for_superlink(deployment: Deployment, child: Child) -> None:
    def is_alive() -> bool:
        return child.process.poll() is None

    if not wait_until_healthy(START_SECONDS, is_alive, deployment.superlink_port, deployment.authority):
        _check_alive([child])
        raise DeploymentError(f"the SuperLink did not answer within {START_SECONDS} s: see {child.log}")


def _check_alive(children: list[Child]) -> None:
    for child in children:
        if child.process.poll() is not None:
            raise DeploymentError(f"{child.name} does not start ({child.read_reason()}): see {child.log}")


def check_free(port: int) -> None:
    """
    Raises
    ------
    DeploymentError: the port is in use, in either family of addresses.
    """
    families = {socket.AF_INET: ""} | ({socket.AF_INET6: "::"} if has_ipv6() else {})
    for family, anywhere in families.items():
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((anywhere, port))
            except OSError as error:
                raise DeploymentError(
                    f"port {port} cannot be used ({error.strerror}): stop the program that uses it"
                ) from None


@contextmanager
def _lock(deployment: Deployment) -> Iterator[None]:
    try:
        held = FileLock(deployment.root / ".lock", timeout=0).acquire()
    except Timeout:
        raise DeploymentError(f"the server in {deployment.root} runs already: stop it first") from None
    with held:
        yield


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Ask Linux to end this child process when the supervisor is killed, so that its ports become free."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
