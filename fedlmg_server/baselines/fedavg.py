"""FedAvg (McMahan et al., 2017): in one round, the mean of the uploads; in many, Flower's own strategy."""

from flwr.serverapp.strategy import FedAvg

from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.averaging import average_uploads
from fedlmg_server.baselines.outcome import Outcome, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun


def one_shot(run: VirtualRun) -> Outcome:
    """The uploads' mean by number of images, used by everyone.

    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    cost = cost_of_uploads(run)
    with cost.timed("server"):
        model = average_uploads(run)
    cost.download_bytes = bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def many_rounds(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    return rounds.train_and_measure(run, FedAvg(**rounds.settings_for_all_clients(run)))
