"""General models of small nets without BatchNorm begin with weights from which they learn."""

from pathlib import Path

import pytest
import torch

from common.config import Config
from common.models.small import SPREAD
from fedlmg_server.general.images import load_general_images
from fedlmg_server.general.models import make_job
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = Config.from_run_config({"workspace": str(tmp_path)})
    found = Run(config, Workspace.open(config, {}), torch.device("cpu"))
    found.workspace.fix_class_names([str(digit) for digit in range(10)])
    return found


@pytest.mark.parametrize("name", SPREAD)
def test_every_layer_keeps_the_variance_of_its_inputs(run: Run, name: str):
    model = make_job(run, name, 1).build()

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    spreads = [float(layer.weight.std() * layer.weight[0].numel() ** 0.5) for layer in layers]
    assert len(layers) > 5
    assert all(0.8 < spread < 1.2 for spread in spreads)


@pytest.mark.slow
def test_a_small_convnext_learns_digits_in_varied_looks(run: Run):
    made = make_job(run, "small_convnext", 900).run(load_general_images(run), may_go_on=False)

    # Without spread weights 1,800 updates read 10 %.
    assert made.accuracy > 0.3
