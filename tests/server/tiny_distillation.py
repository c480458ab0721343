"""Runs to distil from: of uploads, or of none."""

from collections.abc import Sequence
from pathlib import Path

import torch

from common.config.general import GeneralConfig
from common.config.run import Config, DistillationConfig
from common.upload import Upload
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace

CONFIG = DistillationConfig(student_batch_size=16, student_learning_rate=0.05)
CPU = torch.device("cpu")


def make_run(
    config: DistillationConfig = CONFIG, uploads: Sequence[Upload] = (), folder: Path = Path("nowhere")
) -> Run:
    """Of these uploads; of none, a run with two classes."""
    run = Run(Config(general=GeneralConfig(warm_start=False), distillation=config), Workspace(folder), CPU)
    run.uploads = list(uploads)
    if not uploads:
        run.class_names = ["dark", "bright"]
    return run
