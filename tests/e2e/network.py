"""A small federation of real processes on loopback, for the tests that break them."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from PIL import Image

from common.network import find_free_port
from fedlmg_server.deployment.supervisor import PATIENTLY

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
TINY = {
    "dataset": "",
    "num-clients": 2,
    "min-clients": 2,
    "architectures": "small_mobilenet_v3",
    "local-epochs": 6,
    "images-per-class": 1,
    "num-inference-steps": 2,
    "noise-editing-steps": 1,
    "min-confidence": 0.0,
    "student-epochs": 20,
    # Enough to tell dark images from bright ones, so that clients start from the general model.
    "general-updates": 60,
    "teacher-weighting": "uniform",
    "compare": False,
}


def until(condition: Callable[[], object], what: str, seconds: float = 240) -> object:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} in {seconds} s"
        time.sleep(0.05)
    return found


def make_images(folder: Path, shift: int) -> None:
    for split in ("train", "validation", "test"):
        for label, shade in (("cat", 20), ("dog", 200)):
            (folder / split / label).mkdir(parents=True)
            for index in range(6):
                colour = (shade + shift, 30 * index, 90)
                Image.new("RGB", (32, 32), colour).save(folder / split / label / f"{index}.png")


class Network:
    """SuperLink with a database, SuperExec, and SuperNodes kept by `fedlmg-client join`; plain HTTP."""

    def __init__(self, folder: Path, diffusion_model: Path) -> None:
        self.folder, self.port = folder, find_free_port()
        self.client_port = self.port
        """What clients connect to; a slow line puts itself in between."""
        self.workspace = folder / "workspace"
        make_images(folder / "public", 5)
        self.settings = TINY | {"diffusion-model": str(diffusion_model), "public-images": str(folder / "public")}
        self.processes: dict[str, subprocess.Popen] = {}
        home = folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        (folder / "secret").write_bytes(b"s" * 48)
        self.environment = os.environ | {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PYTHONPATH": str(ROOT),
            # Several trainings of several threads each starve each other on one machine.
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def start(self, name: str, *command: str, environment: dict[str, str] | None = None) -> None:
        environment = self.environment | (environment or {})
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_superlink(self) -> None:
        self.start(
            "superlink",
            *PATIENTLY,
            *("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--database", str(self.folder / "state.db"), "--isolation", "process"),
            *("--superexec-auth-secret-file", str(self.folder / "secret"), "--disable-runtime-dependency-installation"),
        )

        until(self._is_up, "SuperLink")

    def _is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start_superexec(self) -> None:
        command = ["flower-superexec", "--insecure", "--runtime-api-address", f"127.0.0.1:{self.port}"]
        self.start("superexec", *PATIENTLY, *command, "--superexec-auth-secret-file", str(self.folder / "secret"))

    def join(self, name: str) -> None:
        if not (self.folder / name).exists():
            make_images(self.folder / name, 10 * len(name))
        self.start(
            name,
            *(sys.executable, "-m", "fedlmg_client.cli", "join", f"127.0.0.1:{self.client_port}", "--insecure"),
            *("--data", str(self.folder / name), "--name", name, "--cache", str(self.cache(name))),
        )

    def cache(self, name: str) -> Path:
        return self.folder / f"{name}-cache"

    def up(self, clients: tuple[str, ...] = ("site-a", "site-bb")) -> None:
        self.start_superlink()
        self.start_superexec()
        for name in clients:
            self.join(name)

    def run(self) -> None:
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in self.settings.items())
        arguments = ["run", "lab", "--workspace", str(self.workspace), "--run-config", pairs]
        self.start("run", sys.executable, "-m", "fedlmg_server.cli", *arguments)

    def run_until_done(self, seconds: float = 600) -> str:
        """Start the run, or again, and return the sha256 of its model."""
        self.run()
        assert self.processes["run"].wait(seconds) == 0, self.last_words()
        return hashlib.sha256((self.workspace / "model" / "model.safetensors").read_bytes()).hexdigest()

    def last_words(self) -> str:
        """The end of every log, for whoever asks why a run failed."""
        return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in sorted(self.folder.rglob("*.log")))

    def find(self, parent: str, part: str) -> psutil.Process | None:
        """A process below one of ours whose command line holds `part`."""
        try:
            below = psutil.Process(self.processes[parent].pid).children(recursive=True)
            return next((process for process in below if part in " ".join(process.cmdline())), None)
        except psutil.NoSuchProcess:
            return None

    def events(self, path: Path) -> list[dict]:
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def has_stage(self, name: str, state: str = "started") -> bool:
        events = self.events(self.workspace / "events.jsonl")
        return any((e["kind"], e.get("name"), e.get("state")) == ("stage", name, state) for e in events)

    def has_status(self, client: str, kind: str) -> bool:
        return any(event["kind"] == kind for event in self.events(self.cache(client) / "events.jsonl"))

    def stop(self) -> None:
        for process in self.processes.values():
            below = []
            if psutil.pid_exists(process.pid):
                below = psutil.Process(process.pid).children(recursive=True)
            for child in [process, *below]:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            process.wait()


class SecureNetwork(Network):
    """The same behind TLS, keys and nginx, by the operator's and the clients' own commands."""

    def __init__(self, folder: Path, diffusion_model: Path) -> None:
        super().__init__(folder, diffusion_model)
        self.root, self.client_port = folder / "server", find_free_port()
        self.workspace = self.root / "runs" / "default"
        ports = ("--port", str(self.client_port), "--superlink-port", str(self.port))
        self.do("fedlmg_server.cli", "server", "init", str(self.root), "--host", "127.0.0.1", *ports)

    def do(self, module: str, *arguments: str) -> str:
        """One command to its end; returns what it printed."""
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_server(self) -> None:
        self.start("server", sys.executable, "-m", "fedlmg_server.cli", "server", "up", str(self.root))
        until(lambda: "The server is up" in self.log("server"), "server")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def register(self, name: str) -> None:
        self.do("fedlmg_client.cli", "keygen", str(self.key(name)))
        self.do("fedlmg_server.cli", "server", "add-client", name, f"{self.key(name)}.pub", "--server", str(self.root))

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def join(
        self,
        name: str,
        ca: Path | None = None,
        host: str = "127.0.0.1",
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """options: those of the connection, in place of the client's own certificate file and key."""
        if not (self.folder / name).exists():
            make_images(self.folder / name, 10 * len(name))
        ours = ("--ca", str(ca or self.root / "ca.crt"), "--key", str(self.key(name)))
        self.start(
            name,
            *(sys.executable, "-m", "fedlmg_client.cli", "join", f"{host}:{self.client_port}"),
            *((*(options or ours), "--name", name)),
            *("--data", str(self.folder / name), "--cache", str(self.cache(name))),
            environment=environment,
        )

    def up(self, clients: tuple[str, ...] = ("site-a", "site-bb", "site-ccc")) -> None:
        self.start_server()
        for name in clients:
            self.register(name)
            self.join(name)

    def run(self) -> None:
        ours = ("federation", "num-clients", "min-clients")
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in self.settings.items() if key not in ours)
        arguments = ["run", "--server", str(self.root), "--run-config", pairs]
        self.start("run", sys.executable, "-m", "fedlmg_server.cli", *arguments)
