"""Nets as narrow as the small ones learn from general images in varied looks."""

from pathlib import Path

import pytest
import torch

from common.config import Config
from fedlmg_server.general.images import load_general_images
from fedlmg_server.general.models import make_job
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace


@pytest.mark.slow
def test_a_small_convnext_learns_digits_in_varied_looks(tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path)})
    run = Run(config, Workspace.open(config, {}), torch.device("cpu"))
    run.workspace.fix_class_names([str(digit) for digit in range(10)])

    made = make_job(run, "small_convnext", 900).run(load_general_images(run), may_go_on=False)

    # With torchvision's initial weights 1,800 updates read 10 %.
    assert made.accuracy > 0.3
