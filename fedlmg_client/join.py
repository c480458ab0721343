"""`fedlmg-client join`: keep a SuperNode alive in the foreground and show one line of status."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from common.clients.node_config import NodeConfig
from common.compat import QUIET_FLOWER, read_exit
from common.network import find_free_port, reach_loopback_directly
from common.processes import OWN_GROUP, UNICODE_OUTPUT, end_processes
from fedlmg_client.compat import CHUNK_SIZE_VARIABLE, LASTING_EXITS
from fedlmg_client.server import Server
from fedlmg_client.status import Status

RESTART_SECONDS = 5.0
"""Pause before a SuperNode that ended is started again."""
QUICK_SECONDS, MOST_QUICK_ENDS = 60, 5
"""A SuperNode that ends so soon, so often in a row, and not because of the connection, is given up."""
POLL_SECONDS = 0.5
STOP_SECONDS = 10
CHUNK_BYTES = 2**20
"""Weights travel in pieces of this size. Flower drops an upload when no piece arrives for three minutes."""


class SuperNodeError(RuntimeError):
    """Flower's SuperNode cannot run here, or not with this server; the message is one sentence."""


def keep_joined(server: Server, node_config: NodeConfig, cache: Path, console: Console) -> None:
    """Run a SuperNode until interrupted; if it ends for a reason that may pass, it is started again.

    Raises
    ------
    SuperNodeError: the SuperNode ended for a reason that lasts.
    """
    status, log_file = Status(cache), cache / "supernode.log"
    cache.mkdir(parents=True, exist_ok=True)
    child, started, quick_ends = _start(server, node_config, cache, log_file), time.monotonic(), 0
    shown = ""
    try:
        with console.status("starting", spinner="line") as spinner:
            while True:
                if child.poll() is not None:
                    status.poll()
                    code, reason = read_exit(log_file.read_text(encoding="utf-8", errors="replace"))
                    is_quick = not status.offline and time.monotonic() - started < QUICK_SECONDS
                    quick_ends = quick_ends + 1 if is_quick else 0
                    if code in LASTING_EXITS or quick_ends == MOST_QUICK_ENDS:
                        raise SuperNodeError(f"the SuperNode cannot run: {reason} (see {log_file})")
                    why = status.offline or f"the SuperNode ended ({reason}; see {log_file})"
                    console.print(f"[yellow]{escape(why)}[/]; starting again", soft_wrap=True)
                    time.sleep(RESTART_SECONDS)
                    child, started = _start(server, node_config, cache, log_file), time.monotonic()
                if (line := status.poll()) != shown:
                    shown = line
                    spinner.update(escape(line))
                    if not console.is_terminal:
                        console.print(escape(line), soft_wrap=True)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        console.print("You left the federation. To rejoin and continue, run the same command again.", soft_wrap=True)
    finally:
        end_processes(child, STOP_SECONDS)


def _start(server: Server, node_config: NodeConfig, cache: Path, log_file: Path) -> subprocess.Popen:
    pairs = " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in node_config.items())
    command = [sys.executable, "-m", "fedlmg_client.supernode", str(os.getpid()), str(cache), *server.to_flags()]
    command += ["--port", str(find_free_port()), "--node-config", pairs]
    switches = {
        **QUIET_FLOWER,
        **UNICODE_OUTPUT,
        **reach_loopback_directly(),
        "FLWR_HOME": str(cache / "flower"),
        CHUNK_SIZE_VARIABLE: str(CHUNK_BYTES),
        # Flower starts its helper programs by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    with open(log_file, "wb") as log:
        return subprocess.Popen(command, env=os.environ | switches, stdout=log, stderr=log, **OWN_GROUP)
