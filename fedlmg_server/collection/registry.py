"""The registry of clients that may join: name, public key and Flower's node id of each, in a JSON file."""

import json
from pathlib import Path

from common.names import is_plain_name
from common.storage.atomic import write_json
from fedlmg_server.flower.compat import KEY_IN_USE, NO_SUCH_NODE
from fedlmg_server.flower.connection import Connection, FlowerError


class RegistryError(ValueError):
    """The client cannot be added or removed; the message is one sentence for the operator."""


class Registry:
    """A file of clients: name -> `key` (an OpenSSH public key without its comment) and `node` (Flower's node id)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_clients(self) -> dict[str, dict]:
        """Name -> entry of every registered client.

        Raises
        ------
        RegistryError: the file is not what `add` wrote.
        """
        try:
            clients = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
            if all(client.keys() >= {"key", "node"} for client in clients.values()):
                return clients
        except (ValueError, AttributeError):
            pass
        raise RegistryError(f"{self.path} is not the JSON that `fedlmg server add-client` wrote: restore the file")

    def read_names(self) -> dict[int, str]:
        """Node -> name of every registered client."""
        return {client["node"]: name for name, client in self.read_clients().items()}

    def add(self, connection: Connection, name: str, key_file: Path) -> int:
        """Allow the owner of a key to join under a name; returns the client's node.

        Adding a name and a key that are registered together already changes nothing.

        Raises
        ------
        RegistryError: the name is not valid, the key cannot be read, or another client has the name or the key.
        FlowerError: the SuperLink does not answer, or rejects the key.
        """
        if not is_plain_name(name):
            raise RegistryError(
                f"a client's name must have 1 to 64 letters, digits, - and _, got {name!r}: choose another name"
            )
        key = _read_key(key_file)
        clients = self.read_clients()
        if name in clients and clients[name]["key"] == key:
            return clients[name]["node"]
        if name in clients:
            raise RegistryError(
                f"'{name}' is registered with another key: remove it first with `fedlmg server remove-client {name}`"
            )
        if owner := next((other for other, client in clients.items() if client["key"] == key), None):
            raise RegistryError(
                f"the key {key_file} is registered already as '{owner}': use that name, or make another key"
            )
        try:
            answer = connection.run_flwr("supernode", "register", str(key_file), connection.name, "--name", name)
        except FlowerError as error:
            if KEY_IN_USE not in str(error):
                raise
            answer = self._find_interrupted(connection, key_file)
        clients[name] = {"key": key, "node": int(answer["node-id"])}
        write_json(self.path, clients)
        return clients[name]["node"]

    def _find_interrupted(self, connection: Connection, key_file: Path) -> dict:
        """The node of an `add` that was interrupted: the SuperLink knows the node, but this file does not."""
        nodes = connection.run_flwr("supernode", "list", connection.name)["nodes"]
        known = self.read_names()
        left = [node for node in nodes if node["status"] != "unregistered" and int(node["node-id"]) not in known]
        if len(left) != 1:
            raise RegistryError(
                f"the key {key_file} was registered and removed before, and Flower accepts no key twice: make another "
                "key with `fedlmg-client keygen`"
            )
        return left[0]

    def remove(self, connection: Connection, name: str) -> None:
        """Remove a client, which can then no longer join. The SuperLink need not know the client any more.

        Raises
        ------
        RegistryError: no client has this name.
        FlowerError: the SuperLink does not answer.
        """
        clients = self.read_clients()
        if name not in clients:
            registered = ", ".join(clients) or "none"
            raise RegistryError(f"no client is registered as '{name}'; registered clients are: {registered}")
        try:
            connection.run_flwr("supernode", "unregister", str(clients.pop(name)["node"]), connection.name)
        except FlowerError as error:
            if NO_SUCH_NODE not in str(error):
                raise
        write_json(self.path, clients)


def _read_key(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"the public key {path} cannot be read: {error}") from None
    if "PRIVATE KEY" in text:
        raise RegistryError(f"{path} is a private key, which must never leave its client: give the .pub file")
    parts = text.split()
    if len(parts) < 2 or not parts[0].startswith("ecdsa-sha2-"):
        raise RegistryError(f"{path} is not an ECDSA public key: make one with `fedlmg-client keygen`")
    return " ".join(parts[:2])
