"""FedDyn (Acar et al., 2021): each client's loss gets a linear and a proximal term that move its optimum to everyone's.

The clients' half is in `rounds.py`; this is the server's, on top of Flower's FedAvg.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.outcome import Outcome
from fedlmg_server.baselines.start import general_model
from fedlmg_server.baselines.virtual_run import VirtualRun

ALPHA = 0.01
"""Weight of the terms: the paper searches 0.001 to 0.1."""


class FedDyn(FedAvg):
    """theta = mean of the clients' models - h / alpha, where h -= alpha x (their mean - the model before)."""

    def __init__(self, alpha: float, parameters: set[str], **settings: Any) -> None:
        super().__init__(**settings)
        self.alpha, self.parameters = alpha, parameters
        self.h: dict[str, np.ndarray] = {}
        self.before: dict[str, np.ndarray] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.before = {name: arrays[name].numpy() for name in self.parameters}
        config["feddyn-alpha"] = self.alpha
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return arrays, metrics
        for name in self.parameters:
            mean = arrays[name].numpy()
            self.h[name] = self.h.get(name, 0.0) - self.alpha * (mean - self.before[name])
            arrays[name] = Array(np.asarray(mean - self.h[name] / self.alpha, mean.dtype))
        return arrays, metrics


def many_rounds(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    return _train(run, rounds.make_initial_model(run))


def many_rounds_from_start(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: no warm start.
    """
    return _train(run, general_model(run))


def _train(run: VirtualRun, model: torch.nn.Module) -> Outcome:
    parameters = {name for name, _ in model.named_parameters()}
    strategy = FedDyn(ALPHA, parameters, **rounds.settings_for_all_clients(run))
    return rounds.train_and_measure(run, strategy, model)
