"""FedProx (Li et al., 2020) by Flower's own strategy: clients are held near the server's model."""

import torch
from flwr.serverapp.strategy import FedProx

from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.outcome import Outcome
from fedlmg_server.baselines.start import general_model
from fedlmg_server.baselines.virtual_run import VirtualRun

MU = 0.01
"""Weight of the proximal term: the paper searches 0.001 to 1."""


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
    strategy = FedProx(**rounds.settings_for_all_clients(run), proximal_mu=MU)
    return rounds.train_and_measure(run, strategy, model)
