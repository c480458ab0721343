"""A grid that behaves as Flower's, and the answers that its nodes may give."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import httpx
import torch
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict

from common.answer import Answer as Said
from common.models import architectures
from common.models.feature_statistics import batch_norm_moments
from common.start import Start
from common.upload import Upload, weights_digest
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.events import Note
from tests.manifests import make_manifest, saying

SUPERLINK = 1
RAISED = 2

Answer = Callable[[Message], Message | None]


class TinyGrid:
    """Nodes that answer a message at the next pull of its id, once; `script` gives each node its answers in turn."""

    def __init__(self, script: dict[int, list[Answer]], online: Callable[[int], set[int]] | None = None) -> None:
        self.script, self.polls, self.pushed = script, 0, []
        self._online = online or (lambda polls: set(script))
        self._waiting: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        self.polls += 1
        return self._online(self.polls)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(f"message-{len(self.pushed)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.pushed.append(message)
            self._waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for message_id in message_ids:
            if message_id in self._waiting:
                question = self._waiting[message_id]
                reply = self.script[question.metadata.dst_node_id][0](question)
                if reply is not None:
                    self.script[question.metadata.dst_node_id].pop(0)
                    del self._waiting[message_id]
                    replies.append(reply)
        return replies


@dataclass
class Model:
    arrays: dict[str, torch.Tensor]
    model_json: dict


def make_upload(name: str) -> Upload:
    torch.manual_seed(0)
    model = architectures.build("small_mobilenet_v3", 2)
    arrays = model.state_dict()
    manifest = make_manifest(architecture="small_mobilenet_v3", sha256=weights_digest(arrays))
    return saying(Upload(arrays, batch_norm_moments(model), manifest), client=name)


def uploads(name: str) -> Answer:
    return lambda question: Message(make_upload(name).to_records(), reply_to=question)


def sends(records: RecordDict) -> Answer:
    return lambda question: Message(records, reply_to=question)


def evaluates(returned: object, num_examples: int = 10) -> Answer:
    """A client that has measured the returned model, or says anything else in place of its accuracy."""
    said = json.dumps({"num_examples": num_examples, "returned": returned})
    return sends(RecordDict({"evaluation": ConfigRecord({"json": said})}))


def answers(
    name: str, class_names: Sequence[str] = ("cat", "dog"), architecture: str = "small_mlp", **changes: object
) -> Answer:
    """A client that says who it is and what it will train."""
    said = Said(client=name, architecture=architecture, class_names=list(class_names), **changes)
    return sends(said.to_records())


def fails(code: int, reason: str) -> Answer:
    def answer(question: Message) -> Message:
        reply = Message(Error(code, reason), reply_to=question)
        reply.metadata.__dict__["_src_node_id"] = SUPERLINK
        return reply

    return answer


def silent(question: Message) -> None:
    return None


class BusyGrid(TinyGrid):
    """Of every three calls of the SuperLink two fail within it."""

    calls = 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.calls += 1
        if self.calls % 3:
            answer = httpx.Response(self.status, request=httpx.Request("POST", "http://superlink/"))
            answer.raise_for_status()
        return super().pull_messages(message_ids)

    status = 500


def stored(strategy: FedLMG) -> list[str]:
    """Clients whose whole uploads the workspace holds."""
    return sorted(folder.name for folder in strategy.workspace.uploads.glob("*") if (folder / "manifest.json").exists())


def sent(grid: TinyGrid, node: int, message_type: str = MessageType.TRAIN) -> list[Message]:
    found = [message for message in grid.pushed if message.metadata.dst_node_id == node]
    return [message for message in found if message.metadata.message_type == message_type]


def start_for(grid: TinyGrid, node: int) -> Start | None:
    (message,) = sent(grid, node)
    return Start.from_records(message.content)


def notes(strategy: FedLMG) -> list[str]:
    return [event.text for event in strategy.workspace.read_events() if isinstance(event, Note)]
