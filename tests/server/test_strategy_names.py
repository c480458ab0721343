"""Who a reply is from: names, keys, and clients that the operator had forgotten."""

import re
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, RecordDict

from common import manifest
from fedlmg_server.collection.broadcast import NODE_UNAVAILABLE
from fedlmg_server.collection.strategy import FedLMG
from tests.manifests import saying
from tests.server.tiny_grid import (
    Answer,
    TinyGrid,
    answers,
    fails,
    make_upload,
    sends,
    stored,
    uploads,
)


def test_a_second_client_of_the_same_name_is_refused(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collection.run(TinyGrid({7: [uploads("mnist")], 8: [uploads("mnist")]}))

    (node, reason), *others = strategy.missing.items()
    assert (stored(strategy), others) == (["mnist"], [])
    assert node in ("node 7", "node 8")
    assert "two clients call themselves 'mnist'" in reason


def test_a_client_answers_under_the_name_of_its_key_alone(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collection.run(TinyGrid({7: [uploads("mnist")], 8: [uploads("optdigits")]}))

    assert stored(strategy) == ["mnist"]
    assert strategy.missing == {
        "printed": "the client calls itself 'optdigits', but its key is registered as 'printed'"
    }


def test_a_key_that_is_not_registered_is_refused(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collection.run(TinyGrid({7: [uploads("mnist")], 9: [uploads("printed")]}))

    assert stored(strategy) == ["mnist"]
    assert "its key is not registered" in strategy.missing["node 9"]


def says(client: str, reason: str) -> Answer:
    return sends(RecordDict({"error": ConfigRecord({"client": client, "reason": reason})}))


def test_a_registered_client_speaks_for_itself_alone(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collection.run(TinyGrid({7: [uploads("mnist")], 8: [says("mnist", "our images are forged")]}))

    assert strategy.missing == {"printed": "our images are forged"}


def test_a_clients_reason_is_short_and_moves_no_cursor(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()

    strategy.collection.run(
        TinyGrid({7: [uploads("mnist")], 8: [says("site\x1b[2J", "\x1b[31mno disk" + "!" * 30_000)]})
    )

    (name,) = strategy.missing
    assert name == "node 8"
    assert len(strategy.missing[name]) == 500
    assert strategy.missing[name].startswith(" [31mno disk!!!")


def test_a_registered_client_that_is_away_is_named_with_the_time(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})
    grid = TinyGrid(
        {7: [uploads("mnist")], 8: [fails(NODE_UNAVAILABLE, "lost")]}, online=lambda polls: {7, 8} if polls < 2 else {7}
    )

    strategy.collection.run(grid)

    assert re.fullmatch(r"unavailable since \d{4}-\d\d-\d\d [\d:]{8} \(lost\)", strategy.missing["printed"])


def test_a_registered_client_that_never_connected_is_named(make_strategy: Callable[..., FedLMG], registry: str):
    strategy = make_strategy(**{"client-registry": registry})

    strategy.collection.run(TinyGrid({7: [uploads("mnist")]}))

    assert strategy.missing == {"printed": "never connected"}


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 101])
def test_a_reply_under_no_proper_name_is_not_stored(make_strategy: Callable[..., FedLMG], name: str):
    strategy = make_strategy()

    strategy.collection.run(TinyGrid({7: [uploads(name)], 8: [uploads("printed")]}))

    assert "a name must be printable" in strategy.missing["node 7"]
    assert stored(strategy) == ["printed"]


def test_a_forgotten_client_is_neither_asked_nor_taken(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy(**{"num-clients": 4})
    strategy.workspace.forgotten.add(["mnist", "optdigits"])
    strategy.workspace.remember_node(7, "mnist")
    grid = TinyGrid(
        {7: [], 8: [answers("printed"), uploads("printed")], 9: [answers("optdigits"), says("optdigits", "")]}
    )

    strategy.collection.run(grid)

    assert {message.metadata.dst_node_id for message in grid.pushed} == {8, 9}
    (refusal,) = (m.content["config"] for m in grid.pushed if m.metadata.dst_node_id == 9 and m.content)
    assert refusal["refused"] == "the operator removed this client from the run"
    assert (stored(strategy), "optdigits" in strategy.missing) == (["printed"], False)


def test_an_upload_that_came_from_a_new_node_is_not_missing(make_strategy: Callable[..., FedLMG]):
    strategy = make_strategy()
    strategy.workspace.remember_node(7, "mnist")
    script = {7: [fails(NODE_UNAVAILABLE, "lost")], 8: [uploads("printed")], 9: [uploads("mnist")]}
    grid = TinyGrid(script, online=lambda polls: {7} if polls < 2 else {8, 9})

    strategy.collection.run(grid)

    assert (stored(strategy), strategy.missing) == (["mnist", "printed"], {})


def test_a_renamed_class_is_taken_from_a_manifest_without_weights(make_strategy: Callable[..., FedLMG]):
    strategy, upload = make_strategy(**{"num-clients": 1}), make_upload("mnist")
    upload.save(strategy.workspace.upload("mnist"))
    strategy.workspace.model.mkdir()
    said = RecordDict({"manifest": saying(upload, class_names=["cat", "wolf"]).to_records()["manifest"]})

    strategy.collection.run(TinyGrid({7: [answers("mnist"), sends(said)]}))

    assert manifest.read(strategy.workspace.upload("mnist")).class_names == ["cat", "wolf"]
    assert not strategy.workspace.model.exists()
