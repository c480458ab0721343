"""FedLMG as a Flower strategy: one communication round with two messages to each client, TRAIN and EVALUATE.

Every reply is written to the workspace as it arrives, so memory does not grow with the number of clients.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from logging import INFO
from pathlib import Path
from typing import Protocol

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from common import manifest
from common.config import Config
from common.evaluation import Evaluation
from common.manifest import Manifest, ManifestError
from common.names import is_sane_name
from common.upload import Upload, is_whole, megabytes
from fedlmg_server.collection.broadcast import Broadcast, ReplyError
from fedlmg_server.collection.registry import Registry
from fedlmg_server.events import ClientEvent, Loss, Progress
from fedlmg_server.monitor.text import shorten
from fedlmg_server.workspace import Workspace


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
        self.registry, self.is_simulated = config.options.client_registry, bool(config.simulation.dataset)
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
        with self.workspace.stage("uploads"):
            self.collect(grid)
        model = self.aggregate_fn()
        arrays = ArrayRecord(model.arrays)
        with self.workspace.stage("evaluation"):
            metrics = self.evaluate(grid, arrays, model.model_json)
        return Result(arrays=arrays, evaluate_metrics_clientapp={1: metrics})

    def collect(self, grid: Grid) -> None:
        """Send TRAIN messages and store the uploads in the workspace; fill `clients` and `missing`.

        Raises
        ------
        QuorumError: the workspace holds fewer than `min-clients` uploads at the deadline.
        """
        num_expected = max(0, self.config.num_clients - len(self.workspace.forgotten))
        self.clients = {}
        broadcast = Broadcast(
            grid,
            lambda nodes: self._make_messages(self._make_question(), MessageType.TRAIN, self._select_nodes(nodes)),
            self._receive_upload,
            lambda broadcast: self._log_progress("uploads", broadcast, num_expected),
            self.poll_seconds,
        )
        self.clients = broadcast.answered
        # Uploads of an earlier run count as answers: their clients need not answer again, and nobody waits for them.
        broadcast.run(
            self.config.deadline_seconds,
            is_enough=lambda broadcast: len(broadcast.answered) >= num_expected,
            is_settled=lambda broadcast: (
                self._all_known(broadcast) or len(self._find_held_uploads()) + len(broadcast.failed) >= num_expected
            ),
            grace_seconds=self.grace_seconds,
        )
        for node, name in broadcast.answered.items():
            self.workspace.remember_node(node, name)
        self._note_missing(broadcast, num_expected)
        if (num_held := len(self._find_held_uploads())) < self.config.min_clients:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.missing.items())
            raise QuorumError(
                f"'min-clients' is {self.config.min_clients}, but only {num_held} of {num_expected} uploads arrived "
                f"({reasons}): repeat the command, which keeps these uploads"
            )

    def _note_missing(self, broadcast: Broadcast, num_expected: int) -> None:
        """Fill `missing` with clients that did not answer, and with expected clients that never connected."""
        known = self._registered | self.workspace.nodes
        for node, (name, reason) in broadcast.list_unanswered().items():
            name = name or known.get(node, "")
            if name not in self.workspace.forgotten:
                self._report_missing(name or f"node {node}", reason)
        num_absent = max(0, num_expected - len(self._find_held_uploads()) - len(self.missing))
        heard_of = {*self._find_held_uploads(), *self.missing, *self.workspace.forgotten}
        absent = [name for name in dict.fromkeys(known.values()) if name not in heard_of][:num_absent]
        if nameless := num_absent - len(absent):
            absent.append(f"{nameless} more")
        few = (
            "Flower simulates too few virtual clients: start the run with `flwr run` --federation-config "
            f'"num-supernodes={num_expected}"'
        )
        for name in absent:
            self._report_missing(name, few if self.is_simulated else "never connected")

    def _select_nodes(self, nodes: list[int]) -> list[int]:
        """The nodes to ask: all but removed clients and clients whose upload is held, which count as answers."""
        have, known, forgotten = self._find_held_uploads(), self.workspace.nodes, self.workspace.forgotten
        held = {node: known[node] for node in nodes if known.get(node) in have and known[node] not in forgotten}
        # If two nodes had the same name, both are asked, and their replies decide.
        held = {node: name for node, name in held.items() if name not in self.clients.values()}
        self.clients |= held
        return [node for node in nodes if node not in held and known.get(node) not in forgotten]

    def _all_known(self, broadcast: Broadcast) -> bool:
        """Whether no more clients can appear: in a simulation all virtual clients are connected from the start."""
        return bool(self.is_simulated and (broadcast.answered or broadcast.failed))

    def evaluate(self, grid: Grid, arrays: ArrayRecord, model_json: dict) -> MetricRecord:
        """Send the model to the clients that answered in EVALUATE messages; fill `evaluations` and `unevaluated`."""
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"model": json.dumps(model_json)})})
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
        return self._make_messages(self._make_question(), MessageType.TRAIN, grid.get_node_ids())

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

    def _make_messages(self, content: RecordDict, message_type: str, nodes: Iterable[int]) -> list[Message]:
        ttl = self.config.deadline_seconds
        return [Message(content, node, message_type, ttl=ttl, group_id="1") for node in nodes]

    def _make_question(self) -> RecordDict:
        """The TRAIN message's content: which uploads the server holds, which clients were removed, the size limit."""
        most = self.config.max_upload_megabytes
        lists = {"have": json.dumps(self._find_held_uploads()), "forgotten": json.dumps(self.workspace.forgotten)}
        return RecordDict({"config": ConfigRecord({**lists, "max-upload-megabytes": most})})

    @property
    def _registered(self) -> dict[int, str]:
        """Node -> name of registered clients. The file is read each time: clients may be added while a run waits."""
        return Registry(Path(self.registry)).read_names() if self.registry else {}

    def _find_held_uploads(self) -> dict[str, str]:
        """Client name -> sha256 of the weights, for every upload in the workspace."""
        folders = self.workspace.uploads.iterdir() if self.workspace.uploads.is_dir() else ()
        held = {}
        for folder in filter(is_whole, folders):
            # An upload that this version cannot read is asked for again.
            with suppress(ManifestError):
                found = manifest.read(folder)
                held[found.client] = found.sha256
        return held

    def _receive_upload(self, reply: Message, node: int) -> str:
        """Write a node's upload to the workspace, and return the client's name."""
        self._raise_client_error(reply, node)
        size, most = megabytes(reply.content), self.config.max_upload_megabytes
        if size > most:
            raise ReplyError(f"the upload has {size:.1f} MB, but 'max-upload-megabytes' allows {most:g}")
        received = self._read_manifest(reply, node)
        name, digest = received.client, received.sha256
        if self.registry and (owner := self._registered.get(node)) != name:
            known = f"its key is registered as '{owner}'" if owner else "its key is not registered"
            raise ReplyError(f"the client calls itself '{name}', but {known}", owner or "")
        if name in self.clients.values():
            raise ReplyError(
                f"two clients call themselves '{name}': give each client its own 'name' in the node config", name
            )
        if name in self.workspace.forgotten:
            raise ReplyError("the operator removed this client from the run", name)
        if "arrays" in reply.content:
            upload = Upload.from_records(reply.content)
            if self._find_held_uploads().get(name, digest) != digest:
                # The client has trained again, so images that its earlier classifier guided are out of date.
                (self.workspace.upload(name) / "manifest.json").unlink()
                self.workspace.remove_images(name)
            upload.save(self.workspace.upload(name))
        elif self._find_held_uploads().get(name) != digest:
            raise ReplyError(
                "the client sent a manifest without weights, but the server does not hold its weights", name
            )
        self.workspace.log(ClientEvent(name=name, state="answered"))
        for epoch, loss in received.training.losses():
            self.workspace.log(Loss(series=f"training, {name}", step=epoch, value=loss))
        return name

    def _read_manifest(self, reply: Message, node: int) -> Manifest:
        try:
            return manifest.parse(reply.content.config_records["manifest"]["json"])
        except ManifestError as error:
            name = self._registered.get(node, "") if self.registry else error.client
            raise ReplyError(str(error), name) from None

    def _receive_evaluation(self, reply: Message, node: int) -> str:
        self._raise_client_error(reply, node)
        name = self.clients[node]
        try:
            evaluation = Evaluation.from_records(reply.content)
        except ValueError as error:
            raise ReplyError(str(error), name) from None
        if evaluation.num_examples:
            self.evaluations[name] = evaluation
        return name

    def _raise_client_error(self, reply: Message, node: int) -> None:
        """Raise ReplyError if the reply is a client's error message, which is in the record `error`.

        With a registry, the client's name comes from its key, so no client can report an error in another's name.
        """
        if "error" in reply.content:
            error = reply.content["error"]
            name = self._registered.get(node, "") if self.registry else str(error["client"])
            raise ReplyError(shorten(error["reason"]), name if is_sane_name(name) else "")

    def _log_progress(self, stage: str, broadcast: Broadcast, total: int) -> None:
        self.workspace.log(Progress(stage=stage, completed=len(broadcast.answered), total=total, unit="clients"))

    def _report_missing(self, name: str, reason: str) -> None:
        self.missing[name] = reason
        self.workspace.log(ClientEvent(name=name, state="failed", reason=reason))
