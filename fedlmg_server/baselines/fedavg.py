"""FedAvg (McMahan et al., 2017): in one round, the mean of the uploads; in many, Flower's own strategy."""

import torch
from flwr.serverapp.strategy import FedAvg

from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.averaging import average_copies, average_uploads
from fedlmg_server.baselines.outcome import Outcome, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.start import general_model
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
    cost.download_bytes += bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def one_shot_from_start(run: VirtualRun) -> Outcome:
    """The same of the classifiers that share a start.

    Raises
    ------
    DoesNotApply: fewer than two clients uploaded one.
    """
    cost = cost_of_uploads(run)
    with cost.timed("server"):
        mean = average_copies(run)
    cost.download_bytes += bytes_to_every_client(run, mean.network)
    return Outcome(run.measure_classifier(mean), cost)


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
    return rounds.train_and_measure(run, FedAvg(**rounds.settings_for_all_clients(run)), model)
