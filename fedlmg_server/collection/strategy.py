"""FedLMG as a Flower strategy: one communication round with two messages to each client, TRAIN and EVALUATE.

With a warm start there is a message before, QUERY, whose answers decide what each client gets to start from.

Every reply is written to the workspace as it arrives, so memory does not grow with the number of clients.
"""

from collections.abc import Callable, Iterable
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
from fedlmg_server.collection.collecting import Collection
from fedlmg_server.collection.messages import add_start, make_messages, make_returned
from fedlmg_server.events import ClientEvent, Progress
from fedlmg_server.workspace import Workspace

AWAITED = "its evaluation has not arrived yet"


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
    report_fn: called with this object when the model is made, before any client is sent it, and again and again while
        evaluations are awaited.
    poll_seconds: pause between two checks for replies.
    grace_seconds: when all expected clients have answered or failed, how long to wait for further clients.
    """

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        aggregate_fn: Callable[[], Aggregated],
        report_fn: Callable[["FedLMG"], None] = lambda strategy: None,
        poll_seconds: float = 0.5,
        grace_seconds: float = 5.0,
    ) -> None:
        self.config, self.workspace = config.clients, workspace
        self.aggregate_fn, self.report_fn = aggregate_fn, report_fn
        self.collection, self.poll_seconds = Collection(config, workspace, poll_seconds, grace_seconds), poll_seconds
        self.evaluations: dict[str, Evaluation] = {}
        """Client name -> what the client measured on its test images; clients without any are left out."""
        self.unevaluated: dict[str, str] = {}
        """Client name -> why the evaluation of a client that answered has not arrived."""

    @property
    def clients(self) -> dict[int, str]:
        """Node -> client name, for the clients that answered."""
        return self.collection.clients

    @property
    def missing(self) -> dict[str, str]:
        """Client name, or node if the name is unknown -> why the upload did not arrive."""
        return self.collection.missing

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
        self.collection.run(grid)
        model = self.aggregate_fn()
        self.unevaluated = dict.fromkeys(self.clients.values(), AWAITED)
        self.report_fn(self)
        arrays = ArrayRecord(model.arrays)
        with self.workspace.stage("evaluation"):
            metrics = self.evaluate(grid, arrays, model.model_json)
        return Result(arrays=arrays, evaluate_metrics_clientapp={1: metrics})

    def evaluate(self, grid: Grid, arrays: ArrayRecord, model_json: dict) -> MetricRecord:
        """Send the model to the clients that answered in EVALUATE messages; fill `evaluations` and `unevaluated`."""
        content = make_returned(arrays, model_json)
        if question := self.collection.question:
            add_start(content, question.start_of_returned())
        broadcast = Broadcast(
            grid,
            lambda nodes: self._make_messages(content, MessageType.EVALUATE, [n for n in nodes if n in self.clients]),
            self._receive_evaluation,
            self._log_evaluations,
            self.poll_seconds,
            on_poll=lambda broadcast: self.report_fn(self),
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
        return [self.collection.make_train_message(node) for node in grid.get_node_ids()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Store the uploads in the workspace; the model is made by `aggregate_fn`, not here."""
        for reply in replies:
            if reply.has_content():
                node = reply.metadata.src_node_id
                self.clients[node] = self.collection.receive_upload(reply, node)
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

    def _make_messages(self, content: RecordDict, message_type: str, nodes: Iterable[int]) -> list[Message]:
        return make_messages(content, message_type, nodes, self.config.deadline_seconds)

    def _receive_evaluation(self, reply: Message, node: int) -> str:
        self.collection.identity.raise_client_error(reply, node)
        name = self.clients[node]
        try:
            evaluation = Evaluation.from_records(reply.content)
        except ValueError as error:
            raise ReplyError(str(error), name) from None
        self.unevaluated.pop(name, None)
        if evaluation.num_examples:
            self.evaluations[name] = evaluation
        return name

    def _log_evaluations(self, broadcast: Broadcast) -> None:
        completed, total = len(broadcast.answered), len(self.clients)
        self.workspace.log(Progress(stage="evaluation", completed=completed, total=total, unit="clients"))
