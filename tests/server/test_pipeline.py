"""What stops a run, in a sentence, before work is done in vain."""

import json
from pathlib import Path

import pytest

from common.config import Config, ConfigError
from common.upload import Upload
from fedlmg_server import pipeline
from fedlmg_server.run import Run
from fedlmg_server.synthesis import store
from fedlmg_server.synthesis.generate import generate_for_client
from fedlmg_server.workspace import Workspace
from tests.manifests import saying
from tests.server.any_model import draws_anything


def test_below_the_quorum_the_run_stops_with_the_reasons(upload: Upload, tmp_path: Path):
    model = draws_anything(tmp_path / "diffusion")
    settings = {"workspace": str(tmp_path), "num-clients": 2, "min-clients": 2, "diffusion-model": model}
    config = Config.from_run_config(settings)
    run = Run(config, Workspace.open(config, {}))
    upload.save(run.workspace.upload("good"))
    saying(upload, schema_version=99).save(run.workspace.upload("bad"))

    with pytest.raises(ConfigError, match=r"1 valid uploads, but 'min-clients' is 2 \(bad: .*'schema' = 99"):
        pipeline.aggregate(run)


def test_an_embedded_model_is_not_asked_for_what_it_never_saw(upload: Upload, tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path), "dataset": "", "num-clients": 1, "min-clients": 1})
    run = Run(config, Workspace.open(config, {}))
    upload.save(run.workspace.upload("site-a"))

    with pytest.raises(ConfigError, match="model 'digits' was not trained on 'cat'; its nearest is"):
        pipeline.aggregate(run)


def test_images_without_a_score_are_generated_again(backend, upload: Upload, tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path), "images-per-class": 2, "num-inference-steps": 2})
    run = Run(config, Workspace.open(config, {}))
    run.uploads = [upload]
    generate_for_client(backend, run, upload)
    folder = run.image_folder(upload)
    images = sorted(folder.rglob("*.png"))
    lines = (folder / "scores-0.jsonl").read_text().splitlines()
    (folder / "scores-0.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:9])

    store.remove_unplanned(run, "fedlmg")

    lost = json.loads(lines[3])["file"]
    assert sorted(folder.rglob("*.png")) == [path for path in images if path != folder / lost]
