"""What the server sends: the task of the TRAIN message, and starts."""

import json
from collections.abc import Iterable

from flwr.app import ConfigRecord, Message, RecordDict

from common.start import Start
from fedlmg_server.collection.uploads import find_held
from fedlmg_server.workspace import Workspace


def make_messages(content: RecordDict, message_type: str, nodes: Iterable[int], ttl: float) -> list[Message]:
    """The same message for each node; `ttl`: seconds after which Flower forgets it."""
    return [Message(content, node, message_type, ttl=ttl, group_id="1") for node in nodes]


def make_task(workspace: Workspace, most: float, refused: str = "") -> RecordDict:
    """The TRAIN message's content: which uploads the server holds, which clients were removed, the size limit in MB,
    and, for a client that must not train, why."""
    lists = {"have": json.dumps(find_held(workspace)), "forgotten": json.dumps(workspace.forgotten)}
    config = ConfigRecord({**lists, "max-upload-megabytes": most})
    if refused:
        config["refused"] = refused
    return RecordDict({"config": config})


def add_start(content: RecordDict, start: Start | None) -> RecordDict:
    """The same records, and those of a start if there is one."""
    if start:
        content.update(start.to_records())
    return content
