"""The strategy under test, and who may take part."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity

from common.config import Config
from common.workspace import Workspace
from fedlmg_server.strategy import FedLMG
from tests.server.tiny_grid import (
    SUPERLINK,
    Model,
)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower stamps every message with the task, the run and the node of its process."""
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", SUPERLINK)


@pytest.fixture
def make_strategy(tmp_path: Path, task: None) -> Callable[..., FedLMG]:
    def make(**changes: object) -> FedLMG:
        settings = {"federation": "", "num-clients": 2, "min-clients": 1, "deadline-seconds": 0.2}
        settings |= {"workspace": str(tmp_path), **changes}
        config = Config.from_run_config(settings)
        model = Model({"weight": torch.ones(2)}, {"class_names": ["cat"]})
        workspace = Workspace.open(config, {})
        return FedLMG(config, workspace, lambda: model, poll_seconds=0.01, grace_seconds=0.02)

    return make


@pytest.fixture
def registry(tmp_path: Path) -> str:
    """Of clients `mnist`, node 7, and `printed`, node 8."""
    path = tmp_path / "clients.json"
    path.write_text(json.dumps({"mnist": {"key": "", "node": 7}, "printed": {"key": "", "node": 8}}))
    return str(path)
