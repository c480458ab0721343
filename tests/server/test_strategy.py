"""Uploads collected over a grid that behaves as Flower's: replies by message id, errors from the SuperLink."""

from collections.abc import Callable

import httpx
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedlmg_server.collection.broadcast import CLIENT_APP_CRASHED, NODE_UNAVAILABLE
from fedlmg_server.collection.collecting import QuorumError
from fedlmg_server.collection.strategy import FedLMG
from tests.manifests import saying
from tests.server.tiny_grid import (
    RAISED,
    BusyGrid,
    TinyGrid,
    answers,
    fails,
    make_upload,
    sends,
    silent,
    stored,
    uploads,
)


def test_every_upload_reaches_the_workspace(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collection.run(TinyGrid({7: [uploads("mnist")], 8: [uploads("printed")]}))

    assert stored(strategy) == ["mnist", "printed"]


def test_error_from_the_superlink_is_laid_to_the_node_that_was_asked(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collection.run(TinyGrid({7: [fails(RAISED, "Traceback\nValueError: no images")], 8: [uploads("printed")]}))

    assert strategy.missing == {"node 7": "ValueError: no images"}


def test_a_clients_own_reason_is_kept_under_its_name(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    record = RecordDict({"error": ConfigRecord({"client": "hospital", "reason": "there is no folder /data"})})

    strategy.collection.run(TinyGrid({7: [sends(record)], 8: [uploads("printed")]}))

    assert strategy.missing == {"hospital": "there is no folder /data"}


def test_a_node_that_was_away_is_asked_again_when_it_returns(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    script = {7: [fails(NODE_UNAVAILABLE, "node is gone"), uploads("mnist")], 8: [uploads("printed")]}
    grid = TinyGrid(script, online=lambda polls: {8} if 1 < polls < 10 else {7, 8})

    strategy.collection.run(grid)

    assert (stored(strategy), strategy.missing) == (["mnist", "printed"], {})


def test_a_client_that_keeps_crashing_is_given_up(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    grid = TinyGrid({7: [fails(CLIENT_APP_CRASHED, "killed")] * 9, 8: [uploads("printed")]})

    strategy.collection.run(grid)

    assert (strategy.missing, len(grid.pushed)) == ({"node 7": "killed"}, 4)


def test_the_long_story_of_a_crash_is_cut(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    grid = TinyGrid({7: [fails(CLIENT_APP_CRASHED, "no memory " * 1000)] * 9, 8: [uploads("printed")]})

    strategy.collection.run(grid)

    assert len(strategy.missing["node 7"]) == 500


def test_a_superlink_that_fails_now_and_then_is_asked_again(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})

    strategy.collection.run(BusyGrid({7: [uploads("mnist")], 8: [uploads("printed")]}))

    assert stored(strategy) == ["mnist", "printed"]


def test_a_superlink_that_refuses_ends_the_run(make_strategy: Callable[..., FedLMG]):
    grid = BusyGrid({7: [uploads("mnist")]})
    grid.status = 403

    with pytest.raises(httpx.HTTPStatusError, match="403"):
        make_strategy().collection.run(grid)


def test_a_node_that_connects_late_is_asked(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"deadline-seconds": 5.0})
    script = {7: [uploads("mnist")], 8: [uploads("printed")]}

    strategy.collection.run(TinyGrid(script, online=lambda polls: {7} if polls < 5 else {7, 8}))

    assert stored(strategy) == ["mnist", "printed"]


def test_a_simulation_of_fewer_clients_does_not_wait_for_more(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(dataset="digits", **{"deadline-seconds": 60.0})

    strategy.collection.run(TinyGrid({7: [uploads("mnist")]}))

    (reason,) = strategy.missing.values()
    assert '--federation-config "num-supernodes=2"' in reason


def test_no_answer_by_the_deadline_is_a_reason(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collection.run(TinyGrid({7: [silent], 8: [uploads("printed")]}))

    assert strategy.missing == {"node 7": "no answer by the deadline"}


def test_a_missed_quorum_names_how_many_and_why(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"min-clients": 2})

    with pytest.raises(QuorumError, match=r"only 1 of 2 uploads arrived.*node 7: no answer by the deadline"):
        strategy.collection.run(TinyGrid({7: [silent], 8: [uploads("printed")]}))


def test_a_client_that_never_connected_is_missing(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collection.run(TinyGrid({8: [uploads("printed")]}))

    assert strategy.missing == {"1 more": "never connected"}


def test_a_malformed_reply_is_a_failure_of_its_node_alone(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    nonsense = RecordDict({"manifest": ConfigRecord({"json": "[]"})})

    strategy.collection.run(TinyGrid({7: [sends(nonsense)], 8: [uploads("printed")]}))

    assert (list(strategy.missing), stored(strategy)) == (["node 7"], ["printed"])


def test_the_cap_is_announced_and_an_upload_above_it_is_not_stored(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"max-upload-megabytes": 0.1})
    grid = TinyGrid({7: [uploads("mnist")]})

    with pytest.raises(QuorumError, match=r"'max-upload-megabytes' allows 0\.1"):
        strategy.collection.run(grid)

    assert grid.pushed[0].content["config"]["max-upload-megabytes"] == 0.1
    assert stored(strategy) == []


def test_a_reply_nested_too_deeply_is_a_failure_of_its_node_alone(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    nonsense = RecordDict({"manifest": ConfigRecord({"json": "[" * 200_000})})

    strategy.collection.run(TinyGrid({7: [sends(nonsense)], 8: [uploads("printed")]}))

    assert (list(strategy.missing), stored(strategy)) == (["node 7"], ["printed"])


def test_a_held_upload_is_offered_and_its_manifest_is_an_answer(make_strategy: Callable[..., FedLMG]):
    held = make_upload("mnist")
    strategy = make_strategy(**{"num-clients": 1})
    held.save(strategy.workspace.upload("mnist"))
    grid = TinyGrid({7: [answers("mnist"), sends(RecordDict({"manifest": held.to_records()["manifest"]}))]})

    strategy.collection.run(grid)

    assert grid.pushed[1].content["config"]["have"] == held.manifest.sha256
    assert strategy.clients == {7: "mnist"}


def test_a_manifest_without_weights_that_nobody_holds_is_refused(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    manifest = RecordDict({"manifest": make_upload("mnist").to_records()["manifest"]})

    strategy.collection.run(TinyGrid({7: [sends(manifest)], 8: [uploads("printed")]}))

    assert "without weights" in strategy.missing["mnist"]


def test_weights_trained_anew_do_away_with_the_images_of_the_old(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})
    held = make_upload("mnist")
    saying(held, sha256="other").save(strategy.workspace.upload("mnist"))
    image = strategy.workspace.synthetic("mnist") / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.touch()

    strategy.collection.run(TinyGrid({7: [answers("mnist"), uploads("mnist")]}))

    assert not image.exists()


def test_the_same_weights_under_other_classes_do_away_with_what_was_made(
    make_strategy: Callable[..., FedLMG],
):
    strategy = make_strategy(**{"num-clients": 1})
    held, workspace = make_upload("mnist"), strategy.workspace
    saying(held, class_names=held.class_names[::-1]).save(workspace.upload("mnist"))
    made = [workspace.synthetic("mnist") / "cat" / "1.png", workspace.finding("mnist"), workspace.model / "model.json"]
    for file in made:
        file.parent.mkdir(parents=True)
        file.touch()

    strategy.collection.run(TinyGrid({7: [answers("mnist"), uploads("mnist")]}))

    assert not any(file.exists() for file in made)


def test_a_server_killed_while_an_upload_arrived_keeps_no_image_of_the_one_before(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 1})
    image = strategy.workspace.synthetic("mnist") / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.touch()

    strategy.collection.run(TinyGrid({7: [uploads("mnist")]}))

    assert not image.exists()
