"""Undocumented parts of Flower, PyTorch, diffusers and accelerate that the server uses.

Tried with Flower 1.41.0 and 1.42.0, PyTorch 2.15.0, diffusers 0.42.1, accelerate 1.15.0.
`tests/server/test_compat.py` fails when one of them changes. What the client uses too is in `common/compat.py`.
`deployment/patience.py` relies on two more: Flower's database is opened by SQLAlchemy, and a SuperExec whose SuperLink
answers with HTTP 500 raises httpx's error; `tests/server/test_patience.py` holds them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNKNOWN, MESSAGE_UNAVAILABLE, NODE_UNAVAILABLE, CLIENT_APP_CRASHED = 0, 3, 5, 8
"""Flower's codes of temporary errors; Flower does not document them."""
LOST = ("No heartbeat received from the task", "Task failed with unknown error.")
"""Flower's details of a run whose ServerApp was ended from outside; they say nothing to a user."""
KEY_IN_USE, NO_SUCH_NODE = "Public key already in use", "Node ID not found"
"""In Flower's errors: a client's key was registered before; the client to remove is not registered."""
FLEET_API, HEALTH = "/v1/fleet/", "/health"
"""Paths of a SuperLink: what its clients may reach, and what answers 200 when it is up."""
NO_INSTALLATION = {"FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
"""The environment variable with which a SuperLink does not install an app's dependencies before each run."""
LOGGER = "flwr"
"""Name of Flower's logger."""


@contextmanager
def act_as_task(run_id: int = 1, task_id: int = 1, node_id: int = 1) -> Iterator[None]:
    """Make Flower's messages outside a Flower process: in a benchmark, or in a test.

    Flower stamps every message with its process's run, task and node, and raises an error in a process without them.
    """
    from flwr.supercore.task_identity import TaskIdentity

    stamps = {"_run_id": run_id, "_task_id": task_id, "_node_id": node_id}
    before = {name: getattr(TaskIdentity, name) for name in stamps}
    _set_all(TaskIdentity, stamps)
    try:
        yield
    finally:
        _set_all(TaskIdentity, before)


def _set_all(target: object, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(target, name, value)


@contextmanager
def quiet_logger() -> Iterator[None]:
    """Let Flower log warnings and errors only."""
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def raise_recompile_limit(limit: int) -> None:
    """Let `torch.compile` compile a module for at least `limit` shapes; beyond its own limit of 8 it would stop.

    `torch.compiler.config` has the same setting, but not in PyTorch 2.6.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, limit)


def forget_origin(*parts: Any) -> None:
    """Let these parts of a diffusers pipeline be saved without the folder that they were opened from."""
    for part in parts:
        part.register_to_config(_name_or_path="")


def list_trackers() -> tuple[list[str], list[str]]:
    """Names of the experiment trackers that accelerate knows, and of those that are installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    return list(LOGGER_TYPE_TO_CLASS), [str(tracker) for tracker in get_available_trackers()]
