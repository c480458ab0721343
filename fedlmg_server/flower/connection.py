"""A connection to a SuperLink: submit a run, ask for its status, and wait for its end, with Flower's command line.

The user's own `flwr run` would not do: it exits with 0 even if the run fails, it leaves its SuperLink running, and it
installs the app's dependencies again.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.compat import QUIET_FLOWER
from common.network import reach_loopback_directly
from common.processes import UNICODE_OUTPUT
from fedlmg_server.flower.compat import LOST, NO_INSTALLATION

POLL_SECONDS, PATIENCE_SECONDS = 60, 600
"""How often Flower is asked whether a run still lives, and for how long it may fail to answer."""
LOST_MEANS = (
    "the ServerApp was ended from outside (it or its SuperExec was killed, or the system clock jumped): "
    "repeat the command, which continues the run"
)


class FlowerError(RuntimeError):
    """A `flwr` command failed; the message is Flower's own."""


@dataclass(frozen=True)
class Connection:
    """A SuperLink, named as in Flower's configuration, and the environment variables for `flwr` commands."""

    name: str
    environment: dict[str, str]

    def run_flwr(self, *arguments: str) -> dict:
        """Run a `flwr` command, and return its JSON output.

        Raises
        ------
        FlowerError: the command failed.
        """
        command = [find_executable("flwr"), *arguments, "--format", "json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, encoding="utf-8", errors="replace")
        with suppress(ValueError):
            # The command may print notices before the JSON.
            answer = json.loads(done.stdout[done.stdout.index("{") :])
            if done.returncode == 0 and answer.get("success", True):
                return answer
            # The error message is the last line.
            raise FlowerError(str(answer.get("error-message") or answer).strip().splitlines()[-1])
        raise FlowerError(" ".join((done.stderr + done.stdout).split()) or f"flwr exited with {done.returncode}")

    def submit(self, app: Path, config: dict, simulation: dict[str, object] | None = None) -> str:
        """Start a run of the app in folder `app` with this flat config, and return the run's id."""
        settings = app.parent / "run-config.toml"
        settings.write_text(to_toml(config), encoding="utf-8")
        options = ["--run-config", str(settings)]
        if simulation:
            options += ["--federation-config", " ".join(f"{key}={value}" for key, value in simulation.items())]
        return self.run_flwr("run", str(app), self.name, *options)["run-id"]

    def fetch_status(self, run_id: str) -> tuple[str, str]:
        """The run's status, such as `finished:completed`, and its details."""
        run = self.run_flwr("list", self.name, "--run-id", run_id)["runs"][0]
        return run["status"], run.get("status-details") or ""

    def wait_for_end(
        self, run_id: str, poll: Callable[[], str | None] = lambda: None, poll_seconds: float = POLL_SECONDS
    ) -> str:
        """Wait until the run ends; return why it failed, or an empty string if it succeeded.

        `poll` is called often and returns what the run itself reports: None until the run ends, then the result. If the
        run dies without a report, the reason is Flower's. While a SuperLink restarts, this function waits.

        Raises
        ------
        FlowerError: Flower does not answer for `PATIENCE_SECONDS`.
        """
        answered = asked = time.monotonic()
        while (end := poll()) is None:
            if time.monotonic() >= asked + poll_seconds:
                asked = time.monotonic()
                try:
                    status, details = self.fetch_status(run_id)
                    answered = time.monotonic()
                except FlowerError:
                    if time.monotonic() > answered + PATIENCE_SECONDS:
                        raise
                    continue
                if status.startswith("finished"):
                    return _explain_status(status, details) if (end := poll()) is None else end
            time.sleep(0.3)
        return end

    def fetch_log(self, run_id: str) -> str:
        """What the ServerApp has printed so far, and in simulation the clients too."""
        command = [find_executable("flwr"), "log", run_id, self.name, "--show"]
        return subprocess.run(
            command, env=self.environment, capture_output=True, encoding="utf-8", errors="replace"
        ).stdout

    def follow_log(self, run_id: str) -> subprocess.Popen:
        """Start a process that prints the run's log as it grows; the caller terminates it."""
        return subprocess.Popen([find_executable("flwr"), "log", run_id, self.name], env=self.environment)


def _explain_status(status: str, details: str) -> str:
    """Why a finished run failed, or an empty string; some of Flower's reasons are replaced by clearer ones."""
    if status == "finished:completed":
        return ""
    return LOST_MEANS if details in LOST else details or f"Flower says {status}"


def find_executable(name: str) -> str:
    """The command in the folder of this Python, or else on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or name


def make_environment(**extra: str) -> dict[str, str]:
    """This process's environment, but Flower sends no telemetry, checks for no updates and installs no dependencies.

    It prints UTF-8, and reaches this machine past any proxy.
    """
    switches = {**QUIET_FLOWER, **NO_INSTALLATION, "RAY_USAGE_STATS_ENABLED": "0"}
    switches |= UNICODE_OUTPUT | reach_loopback_directly()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | switches | {"PATH": path} | extra


def to_toml(config: dict) -> str:
    """Write a flat config as TOML.

    Numbers, strings and booleans are the same in JSON and TOML, except JSON's escapes of single surrogates.
    """
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.items())
