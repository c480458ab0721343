"""Other rules of merging, on two clients whose classifiers are the general model, moved a little."""

from pathlib import Path

import pytest

from common.datasets.labeled_images import LabeledView
from common.storage.atomic import write_json
from fedlmg_server.baselines import merging
from fedlmg_server.baselines.outcome import DoesNotApply
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.general.images import GeneralImages
from tests.conftest import make_upload
from tests.server.test_merged_student import NAMES_IN_ORDER, in_order, make_general, started
from tests.server.tiny_federation import two_colors, virtual_run, warm_run

RULES = [merging.average, merging.ties, merging.fisher, merging.greedy_soup]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VirtualRun:
    found = GeneralImages(LabeledView.of(in_order(two_colors(16))), LabeledView.of(in_order(two_colors(16))), "public")
    monkeypatch.setattr(merging, "load_general_images", lambda run: found)
    monkeypatch.setattr("fedlmg_server.distillation.merged_student.load_general_images", lambda run: found)
    general = make_general()
    made = warm_run([started("a", general, 0.1), started("b", general, -0.1)], tmp_path, general)
    write_json(made.workspace.model / "quality.json", {client: {"weight": 1.0} for client in "ab"})
    return made


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_merge_of_good_classifiers_reads_everybodys_images(rule, run: VirtualRun):
    outcome = rule(run)

    assert outcome.per_client == {"a": 1.0, "b": 1.0}
    assert outcome.cost.rounds == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_clients_without_a_common_start_are_not_merged(rule):
    run = virtual_run([make_upload("a", NAMES_IN_ORDER)])

    with pytest.raises(DoesNotApply, match="set 'warm-start'"):
        rule(run)
