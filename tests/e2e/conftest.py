"""What the end-to-end tests share: a tiny untrained pipeline that real processes can open."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fedlmg_server.diffusion.pretraining import tiny_pipeline

    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.build_pipeline(channels=(16, 32)).save_pretrained(folder)
    return folder
