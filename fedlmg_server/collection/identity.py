"""Who a reply is from: the name that a client gives itself, checked against registry, run and the other clients."""

from collections.abc import Collection
from pathlib import Path

from flwr.app import Message

from common.names import is_sane_name
from fedlmg_server.collection.broadcast import ReplyError
from fedlmg_server.collection.registry import Registry
from fedlmg_server.monitor.text import shorten
from fedlmg_server.workspace import Workspace


class Identity:
    """registry: file of the clients that may join; empty accepts every name."""

    def __init__(self, registry: str, workspace: Workspace) -> None:
        self.registry, self.workspace = registry, workspace

    @property
    def registered(self) -> dict[int, str]:
        """Node -> name of registered clients. The file is read each time: clients may be added while a run waits."""
        return Registry(Path(self.registry)).read_names() if self.registry else {}

    @property
    def known(self) -> dict[int, str]:
        """Node -> name of its client, as far as the server knows before the client says anything."""
        return self.registered if self.registry else self.workspace.nodes

    def name_of(self, node: int, claimed: object) -> str:
        """The client's name where no more than a claim is known, or empty.

        With a registry it comes from the client's key, so no client can speak in another's name.
        """
        name = self.registered.get(node, "") if self.registry else str(claimed)
        return name if is_sane_name(name) else ""

    def raise_client_error(self, reply: Message, node: int) -> None:
        """Raise ReplyError if the reply is a client's error message, which is in the record `error`."""
        if "error" in reply.content:
            error = reply.content["error"]
            raise ReplyError(shorten(error["reason"]), self.name_of(node, error["client"]))

    def check(self, name: str, node: int, others: Collection[str]) -> None:
        """Check that a client may take part under this name; others: names of clients that have answered.

        Raises
        ------
        ReplyError: it may not.
        """
        if self.registry and (owner := self.registered.get(node)) != name:
            known = f"its key is registered as '{owner}'" if owner else "its key is not registered"
            raise ReplyError(f"the client calls itself '{name}', but {known}", owner or "")
        if name in others:
            raise ReplyError(
                f"two clients call themselves '{name}': give each client its own 'name' in the node config", name
            )
        if name in self.workspace.forgotten:
            raise ReplyError("the operator removed this client from the run", name)
