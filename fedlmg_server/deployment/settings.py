"""The folder of a server: paths of all files that `fedlmg server` makes, and the settings in `server.json`."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from common.network import SERVER_PORT, join_address
from common.storage.atomic import write_json
from fedlmg_server.collection.registry import Registry
from fedlmg_server.flower.connection import Connection, make_environment

SUPERLINK_PORT = 9444
CONNECTION = "server"
"""The deployment's Flower configuration gives the SuperLink this name."""


class DeploymentError(ValueError):
    """The deployment cannot be used; the message is one sentence for the operator."""


@dataclass(frozen=True)
class Deployment:
    """Settings and paths of a server.

    hosts: DNS names and IP addresses under which clients reach the server; messages show the first.
    """

    root: Path
    hosts: tuple[str, ...]
    port: int = SERVER_PORT
    """Clients connect to nginx on this port."""
    superlink_port: int = SUPERLINK_PORT
    """The SuperLink listens on this port, on loopback only."""

    @classmethod
    def load(cls, root: Path) -> "Deployment":
        """Read the settings from `server.json` in `root`.

        Raises
        ------
        DeploymentError: `root` holds no deployment, or `server.json` cannot be read.
        """
        root = root.expanduser().resolve()
        try:
            settings = json.loads((root / "server.json").read_text(encoding="utf-8"))
            return cls(root, tuple(settings["hosts"]), int(settings["port"]), int(settings["superlink_port"]))
        except FileNotFoundError:
            raise DeploymentError(
                f"{root} is not the folder of a server: create one with `fedlmg server init {root} --host NAME`"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DeploymentError(f"{root / 'server.json'} cannot be read, so restore it: {error}") from None

    def save(self) -> None:
        settings = {key: value for key, value in asdict(self).items() if key != "root"}
        write_json(self.root / "server.json", settings)

    @property
    def address(self) -> str:
        """Clients connect to this `HOST:PORT`."""
        return join_address(self.hosts[0], self.port)

    @property
    def authority(self) -> Path:
        """The authority's certificate, which every client needs. No other file leaves the server."""
        return self.root / "ca.crt"

    @property
    def authority_key(self) -> Path:
        return self.root / "private" / "ca.key"

    @property
    def certificate(self) -> Path:
        return self.root / "server.crt"

    @property
    def certificate_key(self) -> Path:
        return self.root / "private" / "server.key"

    @property
    def superexec_secret(self) -> Path:
        return self.root / "private" / "superexec.secret"

    @property
    def database(self) -> Path:
        return self.root / "private" / "superlink.db"

    @property
    def nginx(self) -> Path:
        """The proxy's folder, for `nginx.conf` and nginx's temporary files."""
        return self.root / "nginx"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def runs(self) -> Path:
        """The folder of the runs' workspaces."""
        return self.root / "runs"

    @property
    def last_run(self) -> Path:
        """A JSON file that names the workspace of the newest run."""
        return self.root / "last-run.json"

    def read_last_run(self) -> Path | None:
        """The workspace of the newest run; None if there was none.

        Raises
        ------
        DeploymentError: the file that names it is damaged.
        """
        try:
            return Path(json.loads(self.last_run.read_text(encoding="utf-8"))["workspace"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise DeploymentError(f"{self.last_run} is damaged: remove it, and the next run writes it anew") from None

    @property
    def registry(self) -> Registry:
        return Registry(self.root / "clients.json")

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for Flower's commands, which keep their files in this folder."""
        return make_environment(FLWR_HOME=str(self.root / "flower"))

    @property
    def connection(self) -> Connection:
        return Connection(CONNECTION, self.environment)


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, in a folder that only its owner can enter."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
