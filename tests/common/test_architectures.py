"""Small nets start from weights that learn; a user's own builder is imported only when it is named on this machine."""

import sys
from pathlib import Path

import pytest
import torch

from common.config import Config
from common.models import architectures

NETS = """
import torch

def linear(num_classes, image_size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * image_size**2, num_classes))

def nothing(num_classes, image_size):
    return None
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable module of the user's, not yet imported."""
    (tmp_path / "users_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_nets", raising=False)
    return "users_nets"


@pytest.mark.parametrize("name", ["small_convnext", "small_vit"])
def test_every_layer_of_a_narrow_net_keeps_the_variance_of_its_inputs(name: str):
    model = architectures.build(name, 10)

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    spreads = [float(layer.weight.std() * layer.weight[0].numel() ** 0.5) for layer in layers]
    assert len(layers) > 5
    assert all(0.8 < spread < 1.2 for spread in spreads)


def test_a_trusted_builder_is_built(nets: str):
    model = architectures.build(f"{nets}:linear", 5, 8, builders={f"{nets}:linear"})

    assert model[1].weight.shape == (5, 3 * 8 * 8)


def test_a_builder_that_nobody_here_named_is_not_imported(nets: str):
    with pytest.raises(ValueError, match="nobody named it on this machine"):
        architectures.build(f"{nets}:linear", 5, 8, builders={"another:one"})

    assert nets not in sys.modules


@pytest.mark.parametrize(
    ("function", "reason"), [("nothing", "and returned a NoneType"), ("missing", "cannot be imported")]
)
def test_a_builder_that_gives_no_net_is_one_sentence(nets: str, function: str, reason: str):
    name = f"{nets}:{function}"

    with pytest.raises(ValueError, match=reason):
        architectures.build(name, 5, 8, builders={name})


def test_a_module_that_is_not_there_is_one_sentence():
    with pytest.raises(ValueError, match=r"builder 'nowhere\.nets:net' cannot be imported"):
        architectures.build("nowhere.nets:net", 5, 8, builders={"nowhere.nets:net"})


def test_the_operators_builders_are_those_of_the_config():
    config = Config.from_run_config({"architectures": "small_resnet, a.b:c", "student-architecture": "d:e"})

    assert config.builders == {"a.b:c", "d:e"}


def test_the_source_of_a_builder_is_its_module_and_what_that_uses_of_its_package():
    name = "common.models.crashing:build"

    assert {"common.models.crashing", "common.models.small"} <= set(architectures.hash_source(name, {name}))
