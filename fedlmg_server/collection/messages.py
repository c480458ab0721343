"""What the server sends. No message holds anything of another client than the one that it goes to."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from common.start import Start
from fedlmg_server.collection.uploads import find_held
from fedlmg_server.workspace import Workspace

RETURNED = ("architecture", "class_names", "preprocessing")
"""What a client is told of the returned model: how to build it. The rest of its description names other clients."""


def make_messages(content: RecordDict, message_type: str, nodes: Iterable[int], ttl: float) -> list[Message]:
    """The same message for each node; `ttl`: seconds after which Flower forgets it."""
    return [Message(content, node, message_type, ttl=ttl, group_id="1") for node in nodes]


def make_task(workspace: Workspace, client: str, most: float, refused: str = "") -> RecordDict:
    """The TRAIN message's content for one client, whose name is empty while it is unknown: the checksum of its upload
    if the server holds one, the size limit in MB, and, for a client that must not train, why."""
    config = ConfigRecord({"have": find_held(workspace).get(client, ""), "max-upload-megabytes": most})
    if refused:
        config["refused"] = refused
    return RecordDict({"config": config})


def make_returned(arrays: ArrayRecord, description: Mapping[str, Any]) -> RecordDict:
    """The EVALUATE message's content: a state dict, and what of its description it takes to build the model."""
    told = {key: description[key] for key in RETURNED if key in description}
    return RecordDict({"arrays": arrays, "config": ConfigRecord({"model": json.dumps(told)})})


def add_left_out(task: RecordDict, left_out: Mapping[str, str]) -> RecordDict:
    """The same task, which says which of its classes a client must not train for, and why."""
    if left_out:
        task.config_records["config"]["left-out"] = json.dumps(left_out)
    return task


def add_start(content: RecordDict, start: Start | None) -> RecordDict:
    """The same records, and those of a start if there is one."""
    if start:
        content.update(start.to_records())
    return content
