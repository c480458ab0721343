"""General images that a few updates tell apart, and runs that learn general models from them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.config import Config
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.storage.caches import cache_root
from fedlmg_server.general import models, starts
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.server.tiny_federation import two_colors

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> GeneralImages:
    """Dark and bright images, in place of those that runs would load."""
    shrunk = LabeledImages(two_colors().images[:, :, ::2, ::2].contiguous(), two_colors().labels)
    found = GeneralImages(LabeledView.of(shrunk), LabeledView.of(shrunk), "public", ("a note on classes",))
    for module in (models, starts):
        monkeypatch.setattr(module, "load_general_images", lambda run: found)
    return found


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setenv("FEDLMG_CACHE", str(tmp_path / "cache"))

    def make(name: str = "run", **changes: object) -> Run:
        settings = {"workspace": str(tmp_path / name), "general-updates": 8, "image-size": 16}
        config = Config.from_run_config(settings | {key.replace("_", "-"): value for key, value in changes.items()})
        workspace = Workspace.open(config, {})
        workspace.fix_class_names(["dark", "bright"])
        return Run(config, workspace, CPU)

    return make


def cached() -> list[Path]:
    return sorted((cache_root() / "general" / "models").glob("*.safetensors"))
