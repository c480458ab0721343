"""The undocumented parts of Flower and torchvision that client and server rely on are still what they were."""

import ast
import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load, save

from common.compat import QUIET_FLOWER, accept_weights_without_version
from tests import flower_source

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("variable", list(QUIET_FLOWER))
def test_flower_reads_the_variables_that_keep_it_quiet(variable: str):
    assert flower_source.says(variable), f"Flower no longer reads {variable}: see QUIET_FLOWER in common/compat.py"


def test_an_mnasnet_loads_what_safetensors_kept_of_it():
    saved = load(save(torchvision.models.mnasnet0_5().state_dict()))
    net = torchvision.models.mnasnet0_5()
    accept_weights_without_version(net)

    net.load_state_dict(saved)

    assert torch.equal(net.classifier[1].weight, saved["classifier.1.weight"])


def test_torchvision_still_rejects_an_mnasnet_without_a_version():
    net = torchvision.models.mnasnet0_5()

    with pytest.raises(ValueError, match="version"):
        net.load_state_dict(load(save(net.state_dict())))


@pytest.mark.parametrize("module", ["common", "fedlmg_client", "fedlmg_server/flower"])
def test_every_compat_says_with_which_versions_of_flower_it_was_tried(module: str):
    table = re.findall(r"^\| (1\.\d+\.\d+) \| pass", (ROOT / "deploy" / "README.md").read_text(), re.M)

    docstring = ast.get_docstring(ast.parse((ROOT / module / "compat.py").read_text())) or ""

    assert table
    assert f"Tried with Flower {' and '.join(table)}" in docstring
