"""The clients that may take part: name, public key and Flower's node id, in a JSON file beside the server."""

import json
from pathlib import Path
from typing import Protocol

from common.names import safe_name
from common.storage.atomic import write_json
from fedlmg_server.flower.connection import FlowerError

KEY_IN_USE, NO_SUCH_NODE = "Public key already in use", "Node ID not found"
"""In the words of Flower."""


class RegistryError(ValueError):
    """A client that cannot be added or removed; the message is one sentence for the operator."""


class Connection(Protocol):
    name: str

    def run_flwr(self, *arguments: str) -> dict: ...


class Registry:
    """File `path`: name -> `key` (an OpenSSH public key without its comment) and `node` (Flower's id)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clients(self) -> dict[str, dict]:
        try:
            return json.loads(self.path.read_text()) if self.path.exists() else {}
        except ValueError:
            raise RegistryError(f"{self.path} cannot be read: put back what `fedlmg server add-client` wrote") from None

    def names(self) -> dict[int, str]:
        """Node -> name."""
        return {client["node"]: name for name, client in self.clients().items()}

    def add(self, connection: Connection, name: str, key_file: Path) -> int:
        """Let the owner of this key take part under this name; returns its node. The same pair again changes nothing.

        Raises
        ------
        RegistryError: a bad name, an unreadable key, or a name or key that another client has.
        FlowerError: the SuperLink does not answer, or refuses the key.
        """
        if safe_name(name) != name:
            raise RegistryError(f"{name!r} is no name for a client: 1 to 64 letters, digits, - and _")
        key = _read_key(key_file)
        clients = self.clients()
        if name in clients and clients[name]["key"] == key:
            return clients[name]["node"]
        if name in clients:
            raise RegistryError(f"'{name}' is registered with another key: `fedlmg server remove-client` it first")
        if owner := next((other for other, client in clients.items() if client["key"] == key), None):
            raise RegistryError(f"{key_file} is registered already, as '{owner}'")
        try:
            answer = connection.run_flwr("supernode", "register", str(key_file), connection.name, "--name", name)
        except FlowerError as error:
            if KEY_IN_USE not in str(error):
                raise
            answer = self._left_behind(connection, key_file)
        clients[name] = {"key": key, "node": int(answer["node-id"])}
        write_json(self.path, clients)
        return clients[name]["node"]

    def _left_behind(self, connection: Connection, key_file: Path) -> dict:
        """The node of an `add` that was interrupted: the SuperLink has it, and this file does not."""
        nodes = connection.run_flwr("supernode", "list", connection.name)["nodes"]
        known = self.names()
        left = [node for node in nodes if node["status"] != "unregistered" and int(node["node-id"]) not in known]
        if len(left) != 1:
            raise RegistryError(
                f"{key_file} was registered before, and removed: Flower takes no key twice; make another with "
                "`fedlmg-client keygen`"
            )
        return left[0]

    def remove(self, connection: Connection, name: str) -> None:
        """Let it take part no more, also where the SuperLink has forgotten it already.

        Raises
        ------
        RegistryError: there is no such client.
        FlowerError: the SuperLink does not answer.
        """
        clients = self.clients()
        if name not in clients:
            raise RegistryError(f"no client is registered as '{name}'; there are: {', '.join(clients) or 'none'}")
        try:
            connection.run_flwr("supernode", "unregister", str(clients.pop(name)["node"]), connection.name)
        except FlowerError as error:
            if NO_SUCH_NODE not in str(error):
                raise
        write_json(self.path, clients)


def _read_key(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"public key {path} cannot be read: {error}") from None
    if "PRIVATE KEY" in text:
        raise RegistryError(f"{path} is a private key, which never leaves its client: give the .pub file")
    parts = text.split()
    if len(parts) < 2 or not parts[0].startswith("ecdsa-sha2-"):
        raise RegistryError(f"{path} is no ECDSA public key: make one with `fedlmg-client keygen`")
    return " ".join(parts[:2])
