"""Collection of the uploads: with a warm start the question first, then the training, until all expected answered."""

import time
from collections.abc import Iterable, Iterator

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from common.answer import RECORD as ANSWER
from common.config import Config
from fedlmg_server.collection.broadcast import Broadcast, ReplyError
from fedlmg_server.collection.identity import Identity
from fedlmg_server.collection.introduction import Introduction
from fedlmg_server.collection.messages import add_left_out, add_start, make_messages, make_task
from fedlmg_server.collection.missing import explain_missing
from fedlmg_server.collection.question import Question
from fedlmg_server.collection.uploads import find_held, receive_upload
from fedlmg_server.events import ClientEvent, Progress
from fedlmg_server.quarantine import QuorumError
from fedlmg_server.workspace import Workspace

QUESTION_SHARE = 0.5
"""Largest share of the deadline that goes to the question; the training gets the rest."""


class Collection:
    """What clients send before the model is made. The parameters are those of `strategy.FedLMG`."""

    def __init__(self, config: Config, workspace: Workspace, poll_seconds: float, grace_seconds: float) -> None:
        self.config, self.workspace = config.clients, workspace
        self.poll_seconds, self.grace_seconds = poll_seconds, grace_seconds
        self.is_simulated = bool(config.simulation.dataset)
        self.identity = Identity(config.options.client_registry, workspace)
        self.question = Question(config, workspace, self.identity) if config.general.warm_start else None
        self.introduction = self.question or Introduction(self.identity)
        self.tells_names = False
        """Whether it depends on a client's name what is to be asked of it: an earlier run had uploads, or clients were
        removed. A node whose name is unknown then says it before it trains."""
        self.clients: dict[int, str] = {}
        """Node -> client name, for the clients that answered."""
        self.missing: dict[str, str] = {}
        """Client name, or node if the name is unknown -> why the upload did not arrive."""

    def run(self, grid: Grid) -> None:
        """Ask the clients, and store their uploads in the workspace; fill `clients` and `missing`.

        Raises
        ------
        QuorumError: the workspace holds fewer than `min-clients` uploads at the deadline.
        FolderError, ConfigError, RuntimeError: with a warm start, there are no general images.
        """
        num_expected = max(0, self.config.num_clients - len(self.workspace.forgotten))
        self.tells_names = bool(find_held(self.workspace)) or len(self.workspace.forgotten) > 0
        broadcast = Broadcast(
            grid,
            self._ask,
            self._receive,
            lambda broadcast: self._log_answers(broadcast, num_expected),
            self.poll_seconds,
            self._drop_gone,
        )
        self.clients = broadcast.answered
        seconds_left = self.config.deadline_seconds
        if self.question:
            seconds_left -= self._ask_before(broadcast, self.question, num_expected)
        with self.workspace.stage("uploads"):
            # Uploads of an earlier run count as answers: their clients need not answer again, and nobody waits for
            # them.
            broadcast.run(
                seconds_left,
                is_enough=lambda broadcast: len(broadcast.answered) >= num_expected,
                is_settled=lambda broadcast: (
                    self._all_known(broadcast) or len(find_held(self.workspace)) + len(broadcast.failed) >= num_expected
                ),
                grace_seconds=self.grace_seconds,
            )
        if self.question:
            self.question.prepare()
        for node, name in broadcast.answered.items():
            self.workspace.remember_node(node, name)
        known = self.identity.registered | self.workspace.nodes | self.introduction.names
        self.missing |= explain_missing(broadcast, known, self.workspace, num_expected, self.is_simulated)
        for name, reason in self.missing.items():
            self.workspace.log(ClientEvent(name=name, state="failed", reason=reason))
        if (num_held := len(find_held(self.workspace))) < self.config.min_clients:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.missing.items())
            raise QuorumError(
                f"'min-clients' is {self.config.min_clients}, but only {num_held} of {num_expected} uploads arrived "
                f"({reasons}): repeat the command, which keeps these uploads"
            )

    def _ask_before(self, broadcast: Broadcast, question: Question, num_expected: int) -> float:
        """Wait for answers to the question, and make general models; returns how many seconds clients had."""
        started = time.monotonic()
        with self.workspace.stage("question"):
            broadcast.run(
                self.config.deadline_seconds * QUESTION_SHARE,
                is_enough=lambda broadcast: self._count_named(question) >= num_expected,
                is_settled=lambda broadcast: (
                    self._all_known(broadcast)
                    or self._count_heard({*question.answers, *question.refused, *broadcast.failed}) >= num_expected
                ),
                grace_seconds=self.grace_seconds,
            )
        seconds = time.monotonic() - started
        self._drop_gone(broadcast)
        question.prepare()
        return seconds

    def _count_named(self, question: Question) -> int:
        """Number of clients that answered the question or whose uploads are held; two of one name count once, as they
        may be one that was started again."""
        return len({answer.client for answer in question.answers.values()} | find_held(self.workspace).keys())

    def _count_heard(self, nodes: Iterable[int]) -> int:
        """Number of these nodes and of clients whose uploads are held already."""
        answers = self.question.answers if self.question else {}
        named = {answers[node].client for node in nodes if node in answers}
        return len(set(nodes)) + len(find_held(self.workspace).keys() - named)

    def _select_nodes(self, nodes: list[int]) -> list[int]:
        """The nodes to ask: all but removed clients and clients whose upload is held, which count as answers."""
        have, known, forgotten = find_held(self.workspace), self.identity.known, self.workspace.forgotten
        held = {node: known[node] for node in nodes if known.get(node) in have and known[node] not in forgotten}
        # If two nodes had the same name, both are asked, and their replies decide.
        held = {node: name for node, name in held.items() if name not in self.clients.values()}
        self.clients |= held
        return [node for node in nodes if node not in held and known.get(node) not in forgotten]

    def _all_known(self, broadcast: Broadcast) -> bool:
        """Whether no more clients can appear: in a simulation all virtual clients are connected from the start."""
        heard = broadcast.answered or broadcast.failed or (self.question and self.question.answers)
        return self.is_simulated and bool(heard)

    def _ask(self, nodes: list[int]) -> Iterator[Message]:
        """The next message for each node that is to be asked something now."""
        for node in self._select_nodes(nodes):
            if node in self.introduction.refused:
                _, reason = self.introduction.refused[node]
                yield self.make_train_message(node, reason)
            elif node not in self.introduction.answers and (self.question or self._is_stranger(node)):
                yield self._make_message(RecordDict(), MessageType.QUERY, node)
            elif self.question is None or self.question.is_over:
                yield self.make_train_message(node)

    def _is_stranger(self, node: int) -> bool:
        return self.tells_names and node not in self.identity.known

    def make_train_message(self, node: int, refused: str = "") -> Message:
        """What one node is to do; `refused`: why it must not train."""
        name = (self.identity.known | self.introduction.names).get(node, "")
        task = make_task(self.workspace, name, self.config.max_upload_megabytes, refused)
        if self.question and node in self.question.answers:
            add_left_out(task, self.question.left_out.get(node, {}))
            add_start(task, self.question.start_of(node))
        return self._make_message(task, MessageType.TRAIN, node)

    def _make_message(self, content: RecordDict, message_type: str, node: int) -> Message:
        (message,) = make_messages(content, message_type, [node], self.config.deadline_seconds)
        return message

    def _receive(self, reply: Message, node: int) -> str | None:
        """Take a node's answer to the question, and return None, or its upload, and return the client's name."""
        if node in self.introduction.refused:
            name, reason = self.introduction.refused[node]
            raise ReplyError(reason, name)
        if node not in self.introduction.answers and (self.question or ANSWER in reply.content):
            self.introduction.receive(reply, node, self.clients.values())
            return None
        return self.receive_upload(reply, node)

    def receive_upload(self, reply: Message, node: int) -> str:
        """Write a node's upload to the workspace, and return the client's name.

        Raises
        ------
        ReplyError, ValueError: the reply cannot be used.
        """
        most = self.config.max_upload_megabytes
        return receive_upload(reply, node, self.workspace, self.identity, self.clients.values(), most)

    def _drop_gone(self, broadcast: Broadcast) -> None:
        if self.question and not self.question.is_over:
            self.question.drop_gone(broadcast.connected)

    def _log_answers(self, broadcast: Broadcast, total: int) -> None:
        stage, completed = "uploads", len(broadcast.answered)
        if self.question and not self.question.is_over:
            stage, completed = "question", self._count_heard(self.question.answers)
        self.workspace.log(Progress(stage=stage, completed=completed, total=total, unit="clients"))
