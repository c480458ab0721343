"""One message to each node, one reply from each, pulled one at a time; who was away or crashed is asked again.

Works over Flower's Grid, or anything with its `get_node_ids`, `push_messages` and `pull_messages`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

UNKNOWN, MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, CLIENT_APP_CRASHED = 0, 3, 5, 8
PASSING = (UNKNOWN, MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, CLIENT_APP_CRASHED)
"""Flower's codes of errors that may pass; any other is final."""
MOST_CRASHES = 3
"""A client that crashes so often is not asked again; one that goes away and returns always is."""
MOST_REFUSALS = 50
"""So many failures of the SuperLink in a row end the run."""
MALFORMED = (KeyError, TypeError, ValueError, RecursionError)
NO_ANSWER = "no answer by the deadline"


class ReplyError(ValueError):
    """A reply that cannot be used; the message is the reason, `client` the name it came under if it is known."""

    def __init__(self, reason: str, client: str = "") -> None:
        super().__init__(reason)
        self.client = client


@dataclass
class Exchange:
    """Nodes are Flower's ids.

    Parameters
    ----------
    grid: Flower's Grid.
    messages: nodes -> the messages to push to them.
    receive: reply, node -> the client's name; raises ReplyError, or another of `MALFORMED`, on a malformed reply.
    on_change: called with the exchange after each answer and each failure.
    """

    grid: Any
    messages: Callable[[list[int]], Iterable[Any]]
    receive: Callable[[Any, int], str]
    on_change: Callable[["Exchange"], None] = lambda exchange: None
    poll_seconds: float = 0.5

    pending: dict[str, int] = field(default_factory=dict)
    """Message id -> node."""
    answered: dict[int, str] = field(default_factory=dict)
    """Node -> client name."""
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Node -> client name (empty if not known) and why it failed for good."""
    away: dict[int, str] = field(default_factory=dict)
    """Node -> why it was lost; it is asked again once Flower shows it."""
    crashes: Counter = field(default_factory=Counter)
    refusals: int = 0
    """Calls in a row that failed within the SuperLink."""

    def run(
        self,
        deadline_seconds: float,
        is_enough: Callable[["Exchange"], bool],
        is_settled: Callable[["Exchange"], bool] = lambda exchange: False,
        grace_seconds: float = 0.0,
    ) -> None:
        """Until `is_enough`, or `is_settled` with nobody pending or away for `grace_seconds`, or the deadline."""
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
            time.sleep(self.poll_seconds)

    def unanswered(self) -> dict[int, tuple[str, str]]:
        """Node -> client name (empty if not known) and reason, for every node that was asked in vain."""
        reasons = {node: ("", NO_ANSWER) for node in self.pending.values()}
        return reasons | {node: ("", reason) for node, reason in self.away.items()} | self.failed

    def _ask(self) -> None:
        busy = {*self.pending.values(), *self.answered, *self.failed}
        nodes = [node for node in self._patiently(self.grid.get_node_ids) if node not in busy]
        for message in self.messages(nodes):
            node = message.metadata.dst_node_id
            for message_id in self._patiently(self.grid.push_messages, [message]):
                if message_id:
                    self.pending[message_id] = node
                    self.away.pop(node, None)

    def _pull(self, message_id: str) -> None:
        for reply in self._patiently(self.grid.pull_messages, [message_id]):
            # The sender of an error may be the SuperLink: only the id of the question tells which node it is about.
            node = self.pending.pop(message_id)
            if reply.has_error():
                self._note_error(node, reply.error.code, reply.error.reason)
            else:
                self._note_reply(node, reply)
            self.on_change(self)

    def _patiently(self, call: Callable[..., Iterable[Any]], *arguments: Any) -> list[Any]:
        """What the call returns; nothing, for the next look to try again, when a busy SuperLink fails within.

        Flower itself tries again when the line breaks, but not after an answer of 500.
        """
        try:
            found = list(call(*arguments))
        except httpx.HTTPStatusError as error:
            self.refusals += 1
            if error.response.status_code < 500 or self.refusals > MOST_REFUSALS:
                raise
            return []
        self.refusals = 0
        return found

    def _note_reply(self, node: int, reply: Any) -> None:
        try:
            self.answered[node] = self.receive(reply, node)
        except ReplyError as error:
            self.failed[node] = (error.client, str(error))
        except MALFORMED as error:
            self.failed[node] = ("", f"its reply could not be read ({type(error).__name__}: {error})")

    def _note_error(self, node: int, code: int, reason: str) -> None:
        self.crashes[node] += code != NODE_UNAVAILABLE
        # In simulation the reason ends a whole traceback.
        reason = reason.strip().splitlines()[-1] if reason and reason.strip() else f"Flower's error {code}"
        if code in PASSING and self.crashes[node] < MOST_CRASHES:
            self.away[node] = f"unavailable since {datetime.now():%Y-%m-%d %H:%M:%S} ({reason})"
        else:
            self.failed[node] = ("", reason)
