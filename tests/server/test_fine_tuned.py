"""What virtual clients fine-tuned and kept, read on everybody's images."""

from pathlib import Path

import pytest
import torch

from common.evaluation import Evaluation
from common.models import architectures
from common.upload import Upload
from fedlmg_server.baselines import fine_tuned
from fedlmg_server.baselines.virtual_run import VirtualRun
from tests.server.tiny_federation import NAMES, keep, virtual_run

TOLD = {name: Evaluation(num_examples=64, personal=1.0) for name in ("a", "b")}


@pytest.fixture
def run(uploads, tmp_path: Path) -> VirtualRun:
    """Its client `a` keeps a model that is always right, and `b` one that is always wrong."""
    asked = virtual_run(uploads, tmp_path)
    keep(asked, "a", uploads[0], NAMES)
    keep(asked, "b", uploads[1], NAMES[::-1])
    return asked


def test_every_model_reads_every_test_set(run: VirtualRun):
    found = fine_tuned.measure(run, TOLD)

    assert found == {"no-federation": {}, "personal": {"a": {"a": 1.0, "b": 1.0}, "b": {"a": 0.0, "b": 0.0}}}


def test_rows_are_of_a_client_s_own_images_and_of_everybody_s(run: VirtualRun):
    rows = fine_tuned.rows(fine_tuned.measure(run, TOLD))

    assert rows == {"personal": {"a": 1.0, "b": 0.0}, "personal-all": {"a": 0.5, "b": 0.5}}


def test_a_model_of_an_earlier_round_is_not_measured(run: VirtualRun):
    evaluations = {"a": TOLD["a"], "b": Evaluation(num_examples=64, returned=1.0)}

    assert list(fine_tuned.measure(run, evaluations)["personal"]) == ["a"]


def test_a_model_that_is_not_whole_is_not_measured(run: VirtualRun):
    (run.workspace.root / "virtual-clients" / "a" / "personal" / "model.safetensors").write_bytes(b"")

    assert list(fine_tuned.measure(run, TOLD)["personal"]) == ["b"]


def test_a_class_that_the_run_lacks_is_a_wrong_answer(run: VirtualRun):
    network = architectures.build("small_resnet", 2)
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.tensor([0.0, 9.0])
    keep(run, "a", Upload(network.state_dict(), {}, run.uploads[0].manifest), ["bright", "grey"])

    assert fine_tuned.measure(run, TOLD)["personal"]["a"] == {"a": 0.0, "b": 0.0}
