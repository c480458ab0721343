"""Too few fit uploads stop the run with a sentence that says what each unfit one lacks."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Config, ConfigError
from common.upload import Upload
from common.workspace import Workspace
from fedlmg_server import pipeline


def test_below_the_quorum_the_run_stops_with_the_reasons(upload: Upload, tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path), "num-clients": 2, "min-clients": 2})
    workspace = Workspace.open(config, {})
    upload.save(workspace.upload("good"))
    replace(upload, manifest={**upload.manifest, "schema": 99}).save(workspace.upload("bad"))

    with pytest.raises(ConfigError, match=r"1 fit uploads, but 'min-clients' is 2 \(bad: client 'site-a': .*schema 99"):
        pipeline.aggregate(config, workspace)
