"""An ablation draws each variant anew on a finished run's uploads, and nothing twice."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from common.config import Config, ConfigError
from common.files import write_json
from common.workspace import Workspace
from fedlmg_server import ablation
from fedlmg_server.ablation import Row
from fedlmg_server.diffusion import pretrain, tiny_pipeline
from tests.conftest import make_upload

ROW = Row("plain", 0, accuracy=0.5, per_client={"a": 0.5}, num_images=4, kept=1.0, seconds=2.0)


def test_table_has_the_mean_and_the_deviation_over_seeds():
    rows = [ROW, replace(ROW, seed=1, accuracy=0.7, seconds=4.0), replace(ROW, variant="other", kept=0.25)]

    table = ablation.markdown(rows)

    assert "| plain | 60.0 ± 14.1 | 100 | 3 |" in table
    assert "| other | 50.0 ± 0.0 | 25 | 2 |" in table


def test_variant_overrides_the_keys_that_all_share(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('images-per-class = 3\n[variants.few]\nimages-per-class = 1\n[variants."M = 0"]\n')

    variants = ablation.read_variants(file)

    assert variants == {"few": {"images-per-class": 1}, "M = 0": {"images-per-class": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images-per-class = 3", "has no \\[variants.NAME\\]"),
        ("[variants.a]\nimages = 3", "unknown config key 'images'"),
        ("[variants", "cannot be read"),
    ],
)
def test_file_that_is_no_ablation_is_told(tmp_path, text, message):
    file = tmp_path / "a.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=message):
        ablation.read_variants(file)


def test_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no finished run"):
        ablation.run([tmp_path], {"plain": {}}, tmp_path / "out", Console(file=StringIO()))


@pytest.mark.slow
def test_ablation_measures_every_variant_and_continues(tmp_path):
    pretrain.save(tiny_pipeline.build(channels=(16, 32)), tmp_path / "pipeline")
    config = Config.from_run_config(
        {
            "workspace": str(tmp_path / "run"),
            "diffusion-model": str(tmp_path / "pipeline"),
            "images-per-class": 1,
            "num-inference-steps": 2,
            "min-confidence": 0.0,
            "student-epochs": 1,
        }
    )
    workspace = Workspace.open(config, versions={})
    upload = make_upload("a", [str(digit) for digit in range(10)])
    upload.manifest["data"] = "digits/mnist"
    upload.save(workspace.upload("a"))
    write_json(workspace.report / "results.json", {})
    variants = {"plain": {}, "M = 0": {"noise-editing-steps": 0}}

    rows, again = (ablation.run([workspace.root], variants, tmp_path / "out", Console()) for _ in range(2))

    assert [row.variant for row in rows] == ["plain", "M = 0"]
    assert all(row.num_images == 10 for row in rows)
    assert again == rows
    assert (tmp_path / "out" / "accuracy.svg").exists()
