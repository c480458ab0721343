"""Send messages to each node until it has given its last reply; nodes that were away or crashed are asked again.

Replies are pulled one at a time, so that only one is in memory. The grid is Flower's Grid, or any object with its
methods `get_node_ids`, `push_messages` and `pull_messages`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from fedlmg_server.flower.compat import CLIENT_APP_CRASHED, MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, UNKNOWN
from fedlmg_server.monitor.text import shorten

PASSING = (UNKNOWN, MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, CLIENT_APP_CRASHED)
"""Flower's codes of temporary errors, after which a node is asked again; all other errors are final."""
MOST_CRASHES = 3
"""A client that crashes this often is not asked again. A client that goes away and returns is always asked again."""
MOST_FAILURES = 50
"""If the SuperLink fails this many times in a row, the run ends."""
MALFORMED = (KeyError, TypeError, ValueError, RecursionError)
NO_ANSWER = "no answer by the deadline"


class ReplyError(ValueError):
    """The reply cannot be used; the message is the reason, and `client` is the client's name, or empty if unknown."""

    def __init__(self, reason: str, client: str = "") -> None:
        super().__init__(reason)
        self.client = client


@dataclass
class Broadcast:
    """One message to each node and one reply from each. Nodes are given by Flower's ids.

    Parameters
    ----------
    grid: Flower's Grid.
    messages: makes the messages for a list of nodes.
    receive: takes a reply and its node, and returns the client's name, or None if the node is to be asked again, by
        another message. It raises ReplyError, or another error in `MALFORMED`, if the reply cannot be used.
    on_change: called with this object after each reply and each failure.
    on_poll: called with this object after each look for replies.
    """

    grid: Any
    messages: Callable[[list[int]], Iterable[Any]]
    receive: Callable[[Any, int], str | None]
    on_change: Callable[["Broadcast"], None] = lambda broadcast: None
    poll_seconds: float = 0.5
    on_poll: Callable[["Broadcast"], None] = lambda broadcast: None

    pending: dict[str, int] = field(default_factory=dict)
    """Message id -> node."""
    answered: dict[int, str] = field(default_factory=dict)
    """Node -> client name."""
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Node -> client name (empty if unknown) and the reason of its final failure."""
    away: dict[int, str] = field(default_factory=dict)
    """Node -> why it went away; it is asked again when Flower lists it again."""
    connected: set[int] = field(default_factory=set)
    """The nodes that Flower listed last."""
    crashes: Counter = field(default_factory=Counter)
    """Node -> number of its crashes."""
    failures: int = 0
    """Number of calls in a row that failed inside the SuperLink."""

    def run(
        self,
        deadline_seconds: float,
        is_enough: Callable[["Broadcast"], bool],
        is_settled: Callable[["Broadcast"], bool] = lambda broadcast: False,
        grace_seconds: float = 0.0,
    ) -> None:
        """Send messages and receive replies until one of three conditions holds.

        1. `is_enough` is true. 2. For `grace_seconds`, `is_settled` is true and no node is pending or away. 3. The
        deadline has passed.
        """
        deadline = time.monotonic() + deadline_seconds
        settled_since = None
        while not is_enough(self):
            self._ask()
            for message_id in list(self.pending):
                self._pull(message_id)
                if is_enough(self):
                    return
            now = time.monotonic()
            if self.pending or self.away or not is_settled(self):
                settled_since = None
            elif settled_since is None:
                settled_since = now
            if now >= deadline or (settled_since is not None and now - settled_since >= grace_seconds):
                return
            self.on_poll(self)
            time.sleep(self.poll_seconds)

    def list_unanswered(self) -> dict[int, tuple[str, str]]:
        """Node -> client name (empty if unknown) and reason, for every node that was asked but did not answer."""
        reasons = {node: ("", NO_ANSWER) for node in self.pending.values()}
        return reasons | {node: ("", reason) for node, reason in self.away.items()} | self.failed

    def _ask(self) -> None:
        busy = {*self.pending.values(), *self.answered, *self.failed}
        self.connected = set(nodes := self._patiently(self.grid.get_node_ids))
        for message in self.messages([node for node in nodes if node not in busy]):
            node = message.metadata.dst_node_id
            for message_id in self._patiently(self.grid.push_messages, [message]):
                if message_id:
                    self.pending[message_id] = node
                    self.away.pop(node, None)

    def _pull(self, message_id: str) -> None:
        for reply in self._patiently(self.grid.pull_messages, [message_id]):
            # An error may come from the SuperLink, so the node is looked up by the id of the message it answers.
            node = self.pending.pop(message_id)
            if reply.has_error():
                self._note_error(node, reply.error.code, reply.error.reason)
            else:
                self._note_reply(node, reply)
            self.on_change(self)

    def _patiently(self, call: Callable[..., Iterable[Any]], *arguments: Any) -> list[Any]:
        """Return the call's result as a list. If a busy SuperLink fails, the list is empty, and the caller tries again.

        Flower retries by itself when the connection breaks, but not after HTTP 500.
        """
        try:
            found = list(call(*arguments))
        except httpx.HTTPStatusError as error:
            self.failures += 1
            if error.response.status_code < 500 or self.failures > MOST_FAILURES:
                raise
            return []
        self.failures = 0
        return found

    def _note_reply(self, node: int, reply: Any) -> None:
        try:
            if (name := self.receive(reply, node)) is not None:
                self.answered[node] = name
        except ReplyError as error:
            self.failed[node] = (error.client, str(error))
        except MALFORMED as error:
            self.failed[node] = ("", f"the reply could not be read ({type(error).__name__}: {error})")

    def _note_error(self, node: int, code: int, reason: str) -> None:
        self.crashes[node] += code != NODE_UNAVAILABLE
        # In simulation the reason is a whole traceback, whose last line says what happened.
        reason = shorten(reason.strip().splitlines()[-1]) if reason and reason.strip() else f"Flower's error {code}"
        if code in PASSING and self.crashes[node] < MOST_CRASHES:
            self.away[node] = f"unavailable since {datetime.now():%Y-%m-%d %H:%M:%S} ({reason})"
        else:
            self.failed[node] = ("", reason)
