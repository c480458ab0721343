"""A SuperLink by its name: runs submitted, asked after and waited for by Flower's own command line.

`flwr run` exits 0 when the run fails, leaves its SuperLink running, and would install the app's dependencies anew.
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

LOOK_SECONDS, PATIENCE_SECONDS = 60, 600
"""Between two questions to Flower whether a run still lives; and how long it may not answer."""
LOST = ("No heartbeat received from the task", "Task failed with unknown error.")
LOST_MEANS = (
    "the ServerApp was ended from outside (killed, with its SuperExec, or by a clock that jumped); "
    "the same command goes on from the workspace"
)


class FlowerError(RuntimeError):
    """Flower refused; the message says what it said."""


@dataclass(frozen=True)
class Connection:
    """A SuperLink by the name that Flower's configuration gives it, and the environment to reach it in."""

    name: str
    environment: dict[str, str]

    def flwr(self, *arguments: str) -> dict:
        """One `flwr` command's JSON.

        Raises
        ------
        FlowerError: it failed.
        """
        command = [executable("flwr"), *arguments, "--format", "json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        with suppress(ValueError):
            # Notices may stand before the JSON.
            answer = json.loads(done.stdout[done.stdout.index("{") :])
            if done.returncode == 0 and answer.get("success", True):
                return answer
            # The message stands below what else the command printed.
            raise FlowerError(str(answer.get("error-message") or answer).strip().splitlines()[-1])
        raise FlowerError(" ".join((done.stderr + done.stdout).split()) or f"flwr exited with {done.returncode}")

    def submit(self, app: Path, config: dict, simulation: dict[str, object] | None = None) -> str:
        """Start a run of the app with this flat config; returns its id."""
        settings = app.parent / "run-config.toml"
        settings.write_text(to_toml(config), encoding="utf-8")
        options = ["--run-config", str(settings)]
        if simulation:
            options += ["--federation-config", " ".join(f"{key}={value}" for key, value in simulation.items())]
        return self.flwr("run", str(app), self.name, *options)["run-id"]

    def status(self, run_id: str) -> tuple[str, str]:
        """Status (`finished:completed`, say) and its details."""
        run = self.flwr("list", self.name, "--run-id", run_id)["runs"][0]
        return run["status"], run.get("status-details") or ""

    def wait(
        self, run_id: str, poll: Callable[[], str | None] = lambda: None, look_seconds: float = LOOK_SECONDS
    ) -> str:
        """Why the run failed, empty when it did not: by `poll`, or by Flower when it died without a word.

        poll: the run's own last word, None until it has come. A SuperLink that is being started again is waited for.

        Raises
        ------
        FlowerError: it does not answer for `PATIENCE_SECONDS`.
        """
        answered = looked = time.monotonic()
        while (end := poll()) is None:
            if time.monotonic() >= looked + look_seconds:
                looked = time.monotonic()
                try:
                    status, details = self.status(run_id)
                    answered = time.monotonic()
                except FlowerError:
                    if time.monotonic() > answered + PATIENCE_SECONDS:
                        raise
                    continue
                if status.startswith("finished"):
                    return _failure(status, details) if (end := poll()) is None else end
            time.sleep(0.3)
        return end

    def log(self, run_id: str) -> str:
        """What the ServerApp, and in simulation the clients, printed so far."""
        command = [executable("flwr"), "log", run_id, self.name, "--show"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def follow_log(self, run_id: str) -> subprocess.Popen:
        return subprocess.Popen([executable("flwr"), "log", run_id, self.name], env=self.environment)


def _failure(status: str, details: str) -> str:
    """A finished run's failure in Flower's words, or ours where those say nothing to a user; empty if it has none."""
    if status == "finished:completed":
        return ""
    return LOST_MEANS if details in LOST else details or f"Flower says {status}"


def executable(name: str) -> str:
    """The command beside this Python, else on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or name


def environment(**extra: str) -> dict[str, str]:
    """This one, with Flower quiet: no telemetry, no look for updates, no installation of dependencies."""
    switches = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | switches | {"PATH": path} | extra


def to_toml(config: dict) -> str:
    """A flat config as TOML; JSON's numbers, strings and booleans are TOML's, but for its halves of characters."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.items())
