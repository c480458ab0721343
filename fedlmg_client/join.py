"""`fedlmg-client join`: keep a SuperNode alive in the foreground and show one line of status."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from common.clients.node_config import NodeConfig
from common.compat import QUIET_FLOWER
from common.network import find_free_port
from fedlmg_client.compat import ACTIVATION_REFUSED, CHUNK_SIZE_VARIABLE
from fedlmg_client.status import Status

DEFAULT_PORT = 9443
RESTART_SECONDS = 5.0
"""Pause before a SuperNode that ended is started again."""
POLL_SECONDS = 0.5
STOP_SECONDS = 10
CHUNK_BYTES = 2**20
"""Weights travel in pieces of this size. Flower drops an upload when no piece arrives for three minutes."""


@dataclass(frozen=True)
class Server:
    """Where the server is, and how to connect to it.

    address: `host:port`; ca: certificate file of the server's authority; key: private key file of this client.
    With `insecure` the connection is without TLS, and `ca` and `key` are not used.
    """

    address: str
    ca: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def to_flags(self) -> list[str]:
        """The connection's flags for `flower-supernode`."""
        flags = ["--superlink", self.address]
        if self.insecure:
            return [*flags, "--insecure"]
        flags += ["--root-certificates", str(self.ca)] if self.ca else []
        return flags + (["--auth-supernode-private-key", str(self.key)] if self.key else [])


def add_default_port(host: str) -> str:
    """`HOST:PORT` from `HOST` or `HOST:PORT`; the port is 9443 if `host` names none."""
    _, colon, port = host.rpartition(":")
    return host if colon and port.isdigit() else f"{host}:{DEFAULT_PORT}"


def keep_joined(server: Server, node_config: NodeConfig, cache: Path, console: Console) -> None:
    """Run a SuperNode until interrupted; if it ends for any reason, it is started again."""
    status, log_file = Status(cache), cache / "supernode.log"
    cache.mkdir(parents=True, exist_ok=True)
    child = _start(server, node_config, cache, log_file)
    shown = ""
    try:
        with console.status("starting") as spinner:
            while True:
                if child.poll() is not None:
                    console.print(f"[yellow]{escape(_explain_end(log_file))}[/]; starting again", soft_wrap=True)
                    time.sleep(RESTART_SECONDS)
                    child = _start(server, node_config, cache, log_file)
                if (line := status.poll()) != shown:
                    shown = line
                    spinner.update(escape(line))
                    if not console.is_terminal:
                        console.print(escape(line), soft_wrap=True)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        console.print("You left the federation. To rejoin and continue, run the same command again.", soft_wrap=True)
    finally:
        _stop(child)


def _start(server: Server, node_config: NodeConfig, cache: Path, log_file: Path) -> subprocess.Popen:
    pairs = " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in node_config.items())
    command = [sys.executable, "-m", "fedlmg_client.supernode", str(cache), *server.to_flags()]
    command += ["--port", str(find_free_port()), "--node-config", pairs]
    switches = QUIET_FLOWER | {
        "FLWR_HOME": str(cache / "flower"),
        CHUNK_SIZE_VARIABLE: str(CHUNK_BYTES),
        # Flower starts its helper programs by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    with open(log_file, "w") as log:
        return subprocess.Popen(command, env=os.environ | switches, stdout=log, stderr=log, start_new_session=True)


def _stop(child: subprocess.Popen) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _explain_end(log_file: Path) -> str:
    """Why a SuperNode ended, from the last lines of its log."""
    text = log_file.read_text(errors="replace")
    if ACTIVATION_REFUSED in text:
        return (
            "the server does not accept this client: either an earlier connection has not timed out yet, which "
            "takes a minute, or the server's operator has not registered this client's key"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"the SuperNode ended ({lines[-1] if lines else 'it printed nothing'}; see {log_file})"
