"""Baselines of many rounds on a case whose answer is known: what clients learn and keep, and what it costs."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from common.config.run import LARGEST_SEED
from common.datasets.labeled_images import LabeledImages
from fedlmg_server.baselines import (
    fedavg,
    feddyn,
    fedprox,
    rounds,
)
from fedlmg_server.baselines.outcome import bytes_to_every_client
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.flower.compat import act_as_task
from tests.server.tiny_federation import shown, virtual_run


@pytest.mark.parametrize("baseline", [fedavg.many_rounds, fedprox.many_rounds, feddyn.many_rounds])
def test_rounds_learn_what_every_client_shows(baseline, uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rounds, "NUM_ROUNDS", 4)
    monkeypatch.setattr(rounds.train_and_measure, "__defaults__", (4,))

    outcome = baseline(virtual_run(uploads))

    assert outcome.per_client == {"a": 1.0, "b": 1.0}
    assert (outcome.cost.rounds, outcome.cost.epochs) == (4, 4)


def test_rounds_count_a_model_each_way_for_every_client_and_round(uploads):
    asked = virtual_run(uploads)
    size = sum(len(array.data) for array in ArrayRecord(rounds.make_initial_model(asked).state_dict()).values())

    model = rounds.make_initial_model(asked)
    cost = rounds.train_and_measure(asked, rounds_strategy(asked), model, num_rounds=2).cost

    # After the last round everybody gets the average.
    assert cost.upload_bytes == 4 * size
    assert cost.download_bytes == 4 * size + bytes_to_every_client(asked, rounds.make_initial_model(asked))
    assert cost.client_seconds > 0
    assert cost.server_seconds > 0


def rounds_strategy(asked: VirtualRun):
    return fedavg.FedAvg(**rounds.settings_for_all_clients(asked))


def test_proximal_term_holds_a_client_at_the_servers_model(uploads):
    def moved(mu: float) -> float:
        asked = virtual_run(uploads, local_learning_rate=0.01)
        model = rounds.make_initial_model(asked)
        grid = rounds.VirtualClients(asked, model, rounds.Cost(), num_rounds=1)
        before = model.head.weight.detach().clone()
        grid._train(1, shown(), {"server-round": 1, "proximal-mu": mu})
        return (model.head.weight - before).norm().item()

    assert moved(50.0) < 0.5 * moved(0.0)


def test_the_largest_seed_trains_a_client(uploads):
    asked = virtual_run(uploads, seed=LARGEST_SEED)
    grid = rounds.VirtualClients(asked, rounds.make_initial_model(asked), rounds.Cost(), num_rounds=1)

    grid._train(len(uploads), shown(), {"server-round": 1})

    weights = torch.cat([parameter.detach().flatten() for parameter in grid.model.parameters()])
    assert weights.isfinite().all()
    assert len(weights) > 0


def test_feddyn_moves_the_mean_by_what_clients_moved_before():
    strategy = feddyn.FedDyn(0.1, {"w"}, fraction_evaluate=0.0)
    strategy.before = {"w": np.zeros(1)}
    content = RecordDict({"arrays": ArrayRecord({"w": torch.ones(1)}), "metrics": MetricRecord({"num-examples": 1})})
    with act_as_task():
        reply = Message(content, reply_to=Message(RecordDict(), 1, "train"))

    first, _ = strategy.aggregate_train(1, [reply])
    strategy.before = {"w": np.zeros(1)}
    second, _ = strategy.aggregate_train(2, [reply])

    # h = -0.1 x (1 - 0), so the model is 1 + 0.1 / 0.1; then as much again.
    assert first["w"].numpy() == pytest.approx(2.0)
    assert second["w"].numpy() == pytest.approx(3.0)


def train_in_round(grid: rounds.VirtualClients, number: int, data: LabeledImages) -> dict[str, torch.Tensor]:
    """How far FedDyn's client 1 moves each parameter; alpha is 0.1."""
    before = {name: parameter.detach().clone() for name, parameter in grid.model.named_parameters()}
    grid._train(1, data, {"server-round": number, "feddyn-alpha": 0.1})
    return {name: parameter.detach() - before[name] for name, parameter in grid.model.named_parameters()}


def test_feddyns_clients_remember_how_far_they_moved(uploads):
    asked = virtual_run(uploads, local_learning_rate=0.01)
    grid = rounds.VirtualClients(asked, rounds.make_initial_model(asked), rounds.Cost(), num_rounds=2)

    first, second = (train_in_round(grid, number, shown()) for number in (1, 2))

    assert grid.gradients[1].keys() == first.keys() != set()
    for name, remembered in grid.gradients[1].items():
        torch.testing.assert_close(remembered, -0.1 * (first[name] + second[name]))


def test_feddyns_clients_go_where_their_linear_term_points(uploads):
    asked = virtual_run(uploads, local_learning_rate=0.01)
    grid = rounds.VirtualClients(asked, rounds.make_initial_model(asked), rounds.Cost(), num_rounds=1)
    grid.gradients[1] = {name: torch.zeros_like(value) for name, value in grid.model.named_parameters()}
    grid.gradients[1]["head.bias"] += 1000.0

    moved = train_in_round(grid, 1, shown())

    assert (moved["head.bias"] > 1.0).all()


@pytest.mark.parametrize(
    ("baseline", "key", "value"),
    [(fedprox, "proximal-mu", fedprox.MU), (feddyn, "feddyn-alpha", feddyn.ALPHA)],
    ids=["fedprox", "feddyn"],
)
def test_every_client_is_told_the_weight_of_its_term(baseline, key, value, uploads, monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr(rounds.VirtualClients, "_train", lambda self, node, data, config: told.append(config[key]))
    monkeypatch.setattr(rounds.train_and_measure, "__defaults__", (1,))

    baseline.many_rounds(virtual_run(uploads))

    assert told == [value, value]
