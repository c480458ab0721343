"""FedProx (Li et al., 2020) by Flower's own strategy: clients are held near the server's model."""

from flwr.serverapp.strategy import FedProx

from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.outcome import Outcome
from fedlmg_server.baselines.virtual_run import VirtualRun

MU = 0.01
"""Weight of the proximal term: the paper searches 0.001 to 1."""


def many_rounds(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    return rounds.train_and_measure(run, FedProx(**rounds.settings_for_all_clients(run), proximal_mu=MU))
