"""The undocumented parts of Flower and torchvision that client and server rely on are still what they were."""

import pytest
import torch
import torchvision
from safetensors.torch import load, save

from common.compat import QUIET_FLOWER, accept_weights_without_version
from tests import flower_source


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
