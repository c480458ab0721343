"""Evaluation: the model goes to the clients, accuracies come back."""

from collections.abc import Callable

from flwr.app import ConfigRecord, MessageType, RecordDict

from common.evaluation import Evaluation
from fedlmg_server.collection.strategy import FedLMG
from tests.server.tiny_grid import (
    RAISED,
    TinyGrid,
    answers,
    evaluates,
    fails,
    make_upload,
    sends,
    silent,
    uploads,
)


def returned(strategy: FedLMG) -> dict[str, float | None]:
    """Client -> accuracy of the returned model, of all that answered with an evaluation."""
    return {name: evaluation.returned for name, evaluation in strategy.evaluations.items()}


def test_the_model_goes_to_those_who_answered_and_their_accuracies_come_back(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {
        6: [fails(RAISED, "broken")],
        7: [uploads("mnist"), evaluates(0.5)],
        8: [uploads("printed"), evaluates(0.9)],
    }
    grid = TinyGrid(script)

    strategy.start(grid)

    asked = {m.metadata.dst_node_id for m in grid.pushed if m.metadata.message_type == MessageType.EVALUATE}
    assert (returned(strategy), asked) == ({"mnist": 0.5, "printed": 0.9}, {7, 8})


def test_an_accuracy_that_is_no_number_counts_for_nothing(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {7: [uploads("mnist"), evaluates(float("nan"))], 8: [uploads("printed"), evaluates(0.9)]}

    strategy.start(TinyGrid(script))

    assert returned(strategy) == {"printed": 0.9}
    assert strategy.unevaluated == {"mnist": "its evaluation has 'returned' = nan: it must be a finite number"}


def test_an_evaluation_that_is_a_list_counts_for_nothing(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {7: [uploads("mnist"), evaluates([0.5, 0.5])], 8: [uploads("printed"), evaluates(0.9)]}

    strategy.start(TinyGrid(script))

    assert returned(strategy) == {"printed": 0.9}
    assert "it must be a number" in strategy.unevaluated["mnist"]


def test_a_client_without_test_images_has_no_accuracy(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})

    strategy.start(TinyGrid({7: [uploads("mnist"), evaluates(None, num_examples=0)]}))

    assert strategy.evaluations == {}


def test_a_client_lost_before_evaluation_does_not_stop_the_run(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {7: [uploads("mnist"), silent], 8: [uploads("printed"), evaluates(0.9)]}

    strategy.start(TinyGrid(script))

    assert returned(strategy) == {"printed": 0.9}


def test_a_client_whose_upload_is_held_is_not_asked_but_gets_the_model(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    make_upload("mnist").save(strategy.workspace.upload("mnist"))
    strategy.workspace.remember_node(7, "mnist")
    grid = TinyGrid({7: [evaluates(0.5)], 8: [answers("printed"), uploads("printed"), evaluates(0.9)]})

    strategy.start(grid)

    asked = [m.metadata.dst_node_id for m in grid.pushed if m.metadata.message_type == MessageType.TRAIN]
    assert (asked, returned(strategy)) == ([8], {"mnist": 0.5, "printed": 0.9})


def test_an_evaluation_counts_for_the_client_that_was_asked(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    said = Evaluation(num_examples=10, returned=0.1).to_records()
    claim = RecordDict({**said, "client": ConfigRecord({"name": "printed"})})

    strategy.start(TinyGrid({7: [uploads("mnist"), sends(claim)], 8: [uploads("printed"), evaluates(0.9)]}))

    assert returned(strategy) == {"mnist": 0.1, "printed": 0.9}


def test_why_an_evaluation_did_not_come_is_kept(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {7: [uploads("mnist"), silent], 8: [uploads("printed"), evaluates(0.9)]}

    strategy.start(TinyGrid(script))

    assert strategy.unevaluated == {"mnist": "no answer by the deadline"}


def test_stages_are_logged_with_their_seconds(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})

    strategy.start(TinyGrid({7: [uploads("mnist"), evaluates(0.5)]}))

    assert set(strategy.workspace.stage_seconds()) == {"uploads", "evaluation"}


def test_every_accuracy_that_a_client_tells_is_kept(make_strategy: Callable[..., FedLMG]):
    strategy, told = make_strategy(**{"num-clients": 1}), Evaluation(num_examples=9, returned=0.5, personal=0.75)

    strategy.start(TinyGrid({7: [uploads("mnist"), sends(told.to_records())]}))

    assert strategy.evaluations == {"mnist": told}
