"""The two exchanges over a grid that behaves as Flower's: replies by message id, errors from the SuperLink."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from flwr.app import ConfigRecord, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.config import Config
from common.workspace import Workspace
from fedlmg_server.exchange import CLIENT_APP_CRASHED, NODE_UNAVAILABLE
from fedlmg_server.strategy import FedLMG, QuorumError
from tests.server.tiny_grid import (
    RAISED,
    SUPERLINK,
    BusyGrid,
    Model,
    TinyGrid,
    evaluates,
    fails,
    make_upload,
    sends,
    silent,
    uploads,
)


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower stamps every message with the task, the run and the node of its process."""
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", SUPERLINK)


@pytest.fixture
def make_strategy(tmp_path: Path) -> Callable[..., FedLMG]:
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


def stored(strategy: FedLMG) -> list[str]:
    return sorted(folder.name for folder in strategy.workspace.uploads.glob("*") if (folder / "manifest.json").exists())


def test_every_upload_reaches_the_workspace(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collect(TinyGrid({7: [uploads("mnist")], 8: [uploads("printed")]}))

    assert stored(strategy) == ["mnist", "printed"]


def test_error_from_the_superlink_is_laid_to_the_node_that_was_asked(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collect(TinyGrid({7: [fails(RAISED, "Traceback\nValueError: no images")], 8: [uploads("printed")]}))

    assert strategy.missing == {"node 7": "ValueError: no images"}


def test_a_clients_own_reason_is_kept_under_its_name(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    record = RecordDict({"error": ConfigRecord({"client": "hospital", "reason": "there is no folder /data"})})

    strategy.collect(TinyGrid({7: [sends(record)], 8: [uploads("printed")]}))

    assert strategy.missing == {"hospital": "there is no folder /data"}


def test_a_node_that_was_away_is_asked_again_when_it_returns(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    script = {7: [fails(NODE_UNAVAILABLE, "node is gone"), uploads("mnist")], 8: [uploads("printed")]}
    grid = TinyGrid(script, online=lambda polls: {8} if 1 < polls < 10 else {7, 8})

    strategy.collect(grid)

    assert (stored(strategy), strategy.missing) == (["mnist", "printed"], {})


def test_a_client_that_keeps_crashing_is_given_up(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    grid = TinyGrid({7: [fails(CLIENT_APP_CRASHED, "killed")] * 9, 8: [uploads("printed")]})

    strategy.collect(grid)

    assert (strategy.missing, len(grid.pushed)) == ({"node 7": "killed"}, 4)


def test_a_superlink_that_fails_now_and_then_is_asked_again(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collect(BusyGrid({7: [uploads("mnist")], 8: [uploads("printed")]}))

    assert stored(strategy) == ["mnist", "printed"]


def test_a_superlink_that_refuses_ends_the_run(make_strategy: Callable[..., FedLMG]):
    grid = BusyGrid({7: [uploads("mnist")]})
    grid.status = 403

    with pytest.raises(httpx.HTTPStatusError, match="403"):
        make_strategy().collect(grid)


def test_a_node_that_connects_late_is_asked(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    script = {7: [uploads("mnist")], 8: [uploads("printed")]}

    strategy.collect(TinyGrid(script, online=lambda polls: {7} if polls < 5 else {7, 8}))

    assert stored(strategy) == ["mnist", "printed"]


def test_a_simulation_of_fewer_clients_does_not_wait_for_more(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(federation="digits", **{"deadline-seconds": 60.0})

    strategy.collect(TinyGrid({7: [uploads("mnist")]}))

    (reason,) = strategy.missing.values()
    assert '--federation-config "num-supernodes=2"' in reason


def test_no_answer_by_the_deadline_is_a_reason(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collect(TinyGrid({7: [silent], 8: [uploads("printed")]}))

    assert strategy.missing == {"node 7": "no answer by the deadline"}


def test_a_missed_quorum_names_how_many_and_why(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"min-clients": 2})

    with pytest.raises(QuorumError, match=r"1 of 2 uploads came.*node 7: no answer by the deadline"):
        strategy.collect(TinyGrid({7: [silent], 8: [uploads("printed")]}))


def test_a_client_that_never_connected_is_missing(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collect(TinyGrid({8: [uploads("printed")]}))

    assert strategy.missing == {"1 more": "never connected"}


def test_a_second_client_of_the_same_name_is_refused(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collect(TinyGrid({7: [uploads("mnist")], 8: [uploads("mnist")]}))

    assert "another client answered as 'mnist'" in strategy.missing["mnist"]


def test_a_client_answers_under_the_name_of_its_key_alone(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collect(TinyGrid({7: [uploads("mnist")], 8: [uploads("optdigits")]}))

    assert stored(strategy) == ["mnist"]
    assert strategy.missing == {"printed": "it calls itself 'optdigits', but its key is registered as 'printed'"}


def test_a_registered_client_that_is_away_is_named_with_the_time(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})
    grid = TinyGrid(
        {7: [uploads("mnist")], 8: [fails(NODE_UNAVAILABLE, "lost")]}, online=lambda polls: {7, 8} if polls < 2 else {7}
    )

    strategy.collect(grid)

    assert re.fullmatch(r"unavailable since \d{4}-\d\d-\d\d [\d:]{8} \(lost\)", strategy.missing["printed"])


def test_a_malformed_reply_is_a_failure_of_its_node_alone(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    nonsense = RecordDict({"manifest": ConfigRecord({"json": "[]"})})

    strategy.collect(TinyGrid({7: [sends(nonsense)], 8: [uploads("printed")]}))

    assert (list(strategy.missing), stored(strategy)) == (["node 7"], ["printed"])


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 101])
def test_a_reply_under_no_proper_name_is_not_stored(make_strategy: Callable[..., FedLMG], name: str):
    strategy = make_strategy()

    strategy.collect(TinyGrid({7: [uploads(name)], 8: [uploads("printed")]}))

    assert "no proper 'client'" in strategy.missing["node 7"]
    assert stored(strategy) == ["printed"]


def test_the_cap_is_announced_and_an_upload_above_it_is_not_stored(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"max-upload-megabytes": 0.1})
    grid = TinyGrid({7: [uploads("mnist")]})

    with pytest.raises(QuorumError, match=r"above the 'max-upload-megabytes' of 0\.1"):
        strategy.collect(grid)

    assert grid.pushed[0].content["config"]["max-upload-megabytes"] == 0.1
    assert stored(strategy) == []


def test_a_reply_nested_too_deeply_is_a_failure_of_its_node_alone(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    nonsense = RecordDict({"manifest": ConfigRecord({"json": "[" * 200_000})})

    strategy.collect(TinyGrid({7: [sends(nonsense)], 8: [uploads("printed")]}))

    assert (list(strategy.missing), stored(strategy)) == (["node 7"], ["printed"])


def test_a_held_upload_is_offered_and_its_manifest_is_an_answer(make_strategy: Callable[..., FedLMG]):
    held = make_upload("mnist")
    strategy = make_strategy(**{"num-clients": 1})
    held.save(strategy.workspace.upload("mnist"))
    grid = TinyGrid({7: [sends(RecordDict({"manifest": held.to_records()["manifest"]}))]})

    strategy.collect(grid)

    assert json.loads(grid.pushed[0].content["config"]["have"]) == {"mnist": held.manifest["sha256"]}
    assert strategy.clients == {7: "mnist"}


def test_a_manifest_without_weights_that_nobody_holds_is_refused(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    manifest = RecordDict({"manifest": make_upload("mnist").to_records()["manifest"]})

    strategy.collect(TinyGrid({7: [sends(manifest)], 8: [uploads("printed")]}))

    assert "without the weights" in strategy.missing["mnist"]


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
    assert (strategy.evaluations, asked) == ({"mnist": 0.5, "printed": 0.9}, {7, 8})


def test_a_client_without_test_images_has_no_accuracy(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})

    strategy.start(TinyGrid({7: [uploads("mnist"), evaluates(0.0, num_examples=0)]}))

    assert strategy.evaluations == {}


def test_a_client_lost_before_evaluation_does_not_stop_the_run(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {7: [uploads("mnist"), silent], 8: [uploads("printed"), evaluates(0.9)]}

    strategy.start(TinyGrid(script))

    assert strategy.evaluations == {"printed": 0.9}


def test_stages_are_logged_with_their_seconds(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})

    strategy.start(TinyGrid({7: [uploads("mnist"), evaluates(0.5)]}))

    assert set(strategy.workspace.stage_seconds()) == {"uploads", "evaluation"}


def test_a_client_whose_upload_is_held_is_not_asked_but_gets_the_model(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    make_upload("mnist").save(strategy.workspace.upload("mnist"))
    strategy.workspace.remember_node(7, "mnist")
    grid = TinyGrid({7: [evaluates(0.5)], 8: [uploads("printed"), evaluates(0.9)]})

    strategy.start(grid)

    asked = [m.metadata.dst_node_id for m in grid.pushed if m.metadata.message_type == MessageType.TRAIN]
    assert (asked, strategy.evaluations) == ([8], {"mnist": 0.5, "printed": 0.9})


def test_a_forgotten_client_is_neither_asked_nor_taken(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 4})
    (strategy.workspace.root / "forgotten.json").write_text('["mnist", "optdigits"]')
    strategy.workspace.remember_node(7, "mnist")
    grid = TinyGrid({7: [], 8: [uploads("printed")], 9: [uploads("optdigits")]})

    strategy.collect(grid)

    assert {message.metadata.dst_node_id for message in grid.pushed} == {8, 9}
    assert (stored(strategy), "optdigits" in strategy.missing) == (["printed"], False)


def test_weights_trained_anew_do_away_with_the_images_of_the_old(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})
    held = make_upload("mnist")
    replace(held, manifest=held.manifest | {"sha256": "other"}).save(strategy.workspace.upload("mnist"))
    image = strategy.workspace.synthetic("mnist") / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.touch()

    strategy.collect(TinyGrid({7: [uploads("mnist")]}))

    assert not image.exists()


def test_an_evaluation_counts_for_the_client_that_was_asked(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    metrics = MetricRecord({"accuracy": 0.1, "num-examples": 10})
    claim = RecordDict({"metrics": metrics, "client": ConfigRecord({"name": "printed"})})

    strategy.start(TinyGrid({7: [uploads("mnist"), sends(claim)], 8: [uploads("printed"), evaluates(0.9)]}))

    assert strategy.evaluations == {"mnist": 0.1, "printed": 0.9}


def test_a_key_that_is_not_registered_is_refused(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collect(TinyGrid({7: [uploads("mnist")], 9: [uploads("printed")]}))

    assert stored(strategy) == ["mnist"]
    assert "its key is not registered" in strategy.missing["node 9"]


def test_a_registered_client_that_never_connected_is_named(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collect(TinyGrid({7: [uploads("mnist")]}))

    assert strategy.missing == {"printed": "never connected"}


def test_why_an_evaluation_did_not_come_is_kept(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    script = {7: [uploads("mnist"), silent], 8: [uploads("printed"), evaluates(0.9)]}

    strategy.start(TinyGrid(script))

    assert strategy.unevaluated == {"mnist": "no answer by the deadline"}
