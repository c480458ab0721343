"""FedLMG as a Flower strategy: one communication round with two messages to each client, TRAIN and EVALUATE.

With a warm start there is a message before, QUERY, whose answers decide what each client gets to start from.

Every reply is written to the workspace as it arrives, so memory does not grow with the number of clients.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from logging import INFO
from typing import Protocol

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from common.config import Config
from common.evaluation import Evaluation
from fedlmg_server.collection.broadcast import Broadcast, ReplyError
from fedlmg_server.collection.identity import Identity
from fedlmg_server.collection.messages import add_start, make_messages, make_task
from fedlmg_server.collection.missing import explain_missing
from fedlmg_server.collection.question import Question
from fedlmg_server.collection.uploads import find_held, receive_upload
from fedlmg_server.events import ClientEvent, Progress
from fedlmg_server.workspace import Workspace

QUESTION_SHARE = 0.5
"""Largest share of the deadline that goes to the question; the training gets the rest."""


class QuorumError(RuntimeError):
    """Too few uploads arrived by the deadline; the message gives the reason for each missing client."""


class Aggregated(Protocol):
    """The model that `aggregate_fn` returns; `model_json` holds architecture, class_names and preprocessing."""

    @property
    def arrays(self) -> dict[str, torch.Tensor]: ...

    @property
    def model_json(self) -> dict: ...


class FedLMG(Strategy):
    """One-shot federated learning: every client sends one upload, and later one evaluation of the aggregated model.

    Parameters
    ----------
    config, workspace: the run's config and workspace.
    aggregate_fn: makes the model that goes back to the clients from the uploads in the workspace.
    poll_seconds: pause between two checks for replies.
    grace_seconds: when all expected clients have answered or failed, how long to wait for further clients.
    """

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        aggregate_fn: Callable[[], Aggregated],
        poll_seconds: float = 0.5,
        grace_seconds: float = 5.0,
    ) -> None:
        self.config, self.workspace, self.aggregate_fn = config.clients, workspace, aggregate_fn
        self.identity, self.is_simulated = (
            Identity(config.options.client_registry, workspace),
            bool(config.simulation.dataset),
        )
        self.question = Question(config, workspace, self.identity) if config.general.warm_start else None
        self.poll_seconds, self.grace_seconds = poll_seconds, grace_seconds
        self.clients: dict[int, str] = {}
        """Node -> client name, for the clients that answered."""
        self.missing: dict[str, str] = {}
        """Client name, or node if the name is unknown -> why the upload did not arrive."""
        self.evaluations: dict[str, Evaluation] = {}
        """Client name -> what the client measured on its test images; clients without any are left out."""
        self.unevaluated: dict[str, str] = {}
        """Client name -> why the evaluation of a client that answered did not arrive."""

    def summary(self) -> None:
        log(INFO, "\t├──> clients: %s expected, at least %s", self.config.num_clients, self.config.min_clients)
        log(INFO, "\t├──> deadline for uploads, and for evaluations: %.0f s", self.config.deadline_seconds)
        log(INFO, "\t└──> workspace: %s", self.workspace.root)

    def start(  # type: ignore[override]  # Flower passes more, which is ignored
        self, grid: Grid, initial_arrays: ArrayRecord | None = None, num_rounds: int = 1, **_: object
    ) -> Result:
        """Collect the uploads, aggregate them, and evaluate the model: one communication round.

        The deadlines are those of the config; all arguments except `grid` are ignored.

        Raises
        ------
        QuorumError: fewer than `min-clients` uploads arrived by the deadline.
        """
        self.summary()
        self.collect(grid)
        model = self.aggregate_fn()
        arrays = ArrayRecord(model.arrays)
        with self.workspace.stage("evaluation"):
            metrics = self.evaluate(grid, arrays, model.model_json)
        return Result(arrays=arrays, evaluate_metrics_clientapp={1: metrics})

    def collect(self, grid: Grid) -> None:
        """Ask the clients, and store their uploads in the workspace; fill `clients` and `missing`.

        Raises
        ------
        QuorumError: the workspace holds fewer than `min-clients` uploads at the deadline.
        FolderError, ConfigError, RuntimeError: with a warm start, there are no general images.
        """
        num_expected = max(0, self.config.num_clients - len(self.workspace.forgotten))
        broadcast = Broadcast(
            grid,
            self._ask,
            self._receive,
            lambda broadcast: self._log_answers(broadcast, num_expected),
            self.poll_seconds,
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
        answered = {node: answer.client for node, answer in self.question.answers.items()} if self.question else {}
        known = self.identity.registered | self.workspace.nodes | answered
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
                is_enough=lambda broadcast: self._count_heard(question.answers) >= num_expected,
                is_settled=lambda broadcast: (
                    self._all_known(broadcast)
                    or self._count_heard({*question.answers, *question.refused, *broadcast.failed}) >= num_expected
                ),
                grace_seconds=self.grace_seconds,
            )
        seconds = time.monotonic() - started
        question.prepare()
        return seconds

    def _count_heard(self, nodes: Iterable[int]) -> int:
        """Number of these nodes and of clients whose uploads are held already."""
        answers = self.question.answers if self.question else {}
        named = {answers[node].client for node in nodes if node in answers}
        return len(set(nodes)) + len(find_held(self.workspace).keys() - named)

    def _select_nodes(self, nodes: list[int]) -> list[int]:
        """The nodes to ask: all but removed clients and clients whose upload is held, which count as answers."""
        have, known, forgotten = find_held(self.workspace), self.workspace.nodes, self.workspace.forgotten
        held = {node: known[node] for node in nodes if known.get(node) in have and known[node] not in forgotten}
        # If two nodes had the same name, both are asked, and their replies decide.
        held = {node: name for node, name in held.items() if name not in self.clients.values()}
        self.clients |= held
        return [node for node in nodes if node not in held and known.get(node) not in forgotten]

    def _all_known(self, broadcast: Broadcast) -> bool:
        """Whether no more clients can appear: in a simulation all virtual clients are connected from the start."""
        heard = broadcast.answered or broadcast.failed or (self.question and self.question.answers)
        return self.is_simulated and bool(heard)

    def evaluate(self, grid: Grid, arrays: ArrayRecord, model_json: dict) -> MetricRecord:
        """Send the model to the clients that answered in EVALUATE messages; fill `evaluations` and `unevaluated`."""
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"model": json.dumps(model_json)})})
        if self.question:
            add_start(content, self.question.start_of_returned())
        broadcast = Broadcast(
            grid,
            lambda nodes: self._make_messages(content, MessageType.EVALUATE, [n for n in nodes if n in self.clients]),
            self._receive_evaluation,
            lambda broadcast: self._log_progress("evaluation", broadcast, len(self.clients)),
            self.poll_seconds,
        )
        broadcast.run(
            self.config.deadline_seconds,
            is_enough=lambda broadcast: len(broadcast.answered) + len(broadcast.failed) >= len(self.clients),
        )
        unanswered = broadcast.list_unanswered()
        for node, name in self.clients.items():
            if node not in broadcast.answered:
                _, reason = unanswered.get(node, ("", "it did not reconnect"))
                self.unevaluated[name] = reason
                self.workspace.log(ClientEvent(name=name, state="failed", reason=f"no evaluation: {reason}"))
        accuracies = self._returned_accuracies.values()
        return MetricRecord({"accuracy": sum(accuracies) / len(accuracies)} if accuracies else {})

    @property
    def _returned_accuracies(self) -> dict[str, float]:
        """Client name -> accuracy of the returned model on the client's test images."""
        told = {name: evaluation.returned for name, evaluation in self.evaluations.items()}
        return {name: accuracy for name, accuracy in told.items() if accuracy is not None}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A message for each connected node. `arrays` and `config` are not sent: there is no global model yet."""
        return self._make_messages(self._make_task(), MessageType.TRAIN, grid.get_node_ids())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Store the uploads in the workspace; the model is made by `aggregate_fn`, not here."""
        for reply in replies:
            if reply.has_content():
                node = reply.metadata.src_node_id
                self.clients[node] = self._receive_upload(reply, node)
        return None, MetricRecord({"num-uploads": len(self.clients)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A message for each connected node; `config` must hold `model`, the JSON that describes `arrays`."""
        content = RecordDict({"arrays": arrays, "config": config})
        return self._make_messages(content, MessageType.EVALUATE, grid.get_node_ids())

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        for reply in replies:
            if reply.has_content():
                self._receive_evaluation(reply, reply.metadata.src_node_id)
        return MetricRecord({**self._returned_accuracies})

    def _ask(self, nodes: list[int]) -> Iterator[Message]:
        """The next message for each node that is to be asked something now."""
        for node in self._select_nodes(nodes):
            if self.question is None:
                yield from self._make_messages(self._make_task(), MessageType.TRAIN, [node])
            elif node in self.question.refused:
                _, reason = self.question.refused[node]
                yield from self._make_messages(self._make_task(reason), MessageType.TRAIN, [node])
            elif node not in self.question.answers:
                yield from self._make_messages(RecordDict(), MessageType.QUERY, [node])
            elif self.question.is_over:
                task = add_start(self._make_task(), self.question.start_of(node))
                yield from self._make_messages(task, MessageType.TRAIN, [node])

    def _make_messages(self, content: RecordDict, message_type: str, nodes: Iterable[int]) -> list[Message]:
        return make_messages(content, message_type, nodes, self.config.deadline_seconds)

    def _make_task(self, refused: str = "") -> RecordDict:
        return make_task(self.workspace, self.config.max_upload_megabytes, refused)

    def _receive(self, reply: Message, node: int) -> str | None:
        """Take a node's answer to the question, and return None, or its upload, and return the client's name."""
        if self.question and node in self.question.refused:
            name, reason = self.question.refused[node]
            raise ReplyError(reason, name)
        if self.question and node not in self.question.answers:
            self.question.receive(reply, node, self.clients.values())
            return None
        return self._receive_upload(reply, node)

    def _receive_upload(self, reply: Message, node: int) -> str:
        most = self.config.max_upload_megabytes
        return receive_upload(reply, node, self.workspace, self.identity, self.clients.values(), most)

    def _receive_evaluation(self, reply: Message, node: int) -> str:
        self.identity.raise_client_error(reply, node)
        name = self.clients[node]
        try:
            evaluation = Evaluation.from_records(reply.content)
        except ValueError as error:
            raise ReplyError(str(error), name) from None
        if evaluation.num_examples:
            self.evaluations[name] = evaluation
        return name

    def _log_answers(self, broadcast: Broadcast, total: int) -> None:
        if self.question and not self.question.is_over:
            completed = self._count_heard(self.question.answers)
            self.workspace.log(Progress(stage="question", completed=completed, total=total, unit="clients"))
        else:
            self._log_progress("uploads", broadcast, total)

    def _log_progress(self, stage: str, broadcast: Broadcast, total: int) -> None:
        self.workspace.log(Progress(stage=stage, completed=len(broadcast.answered), total=total, unit="clients"))
