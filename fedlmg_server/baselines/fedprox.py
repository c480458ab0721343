"""FedProx (Li et al., 2020) by Flower's own strategy: clients are held near the server's model."""

from flwr.serverapp.strategy import FedProx

from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.federation import Federation, Outcome

MU = 0.01
"""Weight of the proximal term: the paper searches 0.001 to 1."""


def many_rounds(federation: Federation) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    return rounds.run(federation, FedProx(**rounds.everyone(federation), proximal_mu=MU))
