"""What a run will need is told from its config alone, before any client is asked."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import huggingface_hub
import pytest
from diffusers import DiffusionPipeline
from typer.testing import CliRunner

from common.config import Config, ConfigError
from fedlmg_server.cli import app
from fedlmg_server.forecast import Forecast, forecast
from tests.server import tiny_pipelines

Usage = namedtuple("Usage", "total used free")


def make_forecast(classes: int | None = None, seconds: float | None = 3.6, **settings: object) -> Forecast:
    return forecast(
        Config.from_run_config({name.replace("_", "-"): value for name, value in settings.items()}), classes, seconds
    )


def test_images_of_virtual_clients_are_counted_by_the_classes_that_each_holds():
    found = make_forecast(client_classes="0-3;4,5", num_clients=2, images_per_class=5)

    assert found.sentences()[0] == "30 guided images of 32 pixels: 5 of every class that each of 2 clients holds"


def test_hours_follow_from_the_seconds_of_an_image():
    found = make_forecast(num_clients=2, min_clients=2, images_per_class=50, seconds=36.0)

    assert f"about 10.0 hours, or {10 / found.processes:.1f} hours on" in found.sentences()[1]


def test_clients_of_a_deployment_hold_as_many_classes_as_are_given():
    assert make_forecast(classes=7, dataset="", num_clients=3, images_per_class=2).num_images == 42


def test_classes_of_a_deployment_must_be_given():
    with pytest.raises(ConfigError, match="how many classes the clients hold: give `--classes`"):
        make_forecast(dataset="")


def test_what_fits_needs_no_warning():
    assert not any("will not fit" in line for line in make_forecast().sentences())


def test_largest_need_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 0, 10**6))

    found = make_forecast(max_images=600)

    assert "It will not fit, and the largest need is disk:" in found.sentences()[-1]
    assert "lower 'images-per-class'" in found.sentences()[-1]


def test_disk_holds_the_images_at_the_size_of_the_diffusion_model():
    few, many = (make_forecast(images_per_class=count).needs[0].needed for count in (1000, 2000))

    assert many - few == pytest.approx(4 * 10 * 1000 * 3 * 32 * 32 / 1e9)


def test_images_beyond_the_limit_do_not_fit():
    assert "'max-images': 640 of 600 that are allowed" in make_forecast(max_images=600).sentences()[-1]


def test_hours_without_weights_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub = tiny_pipelines.save("dit", tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, revision=None: str(hub / file))

    found = make_forecast(classes=2, seconds=None, dataset="", diffusion_model="nobody/has-this")

    assert "not known, as the weights of 'nobody/has-this' are not on this machine" in found.sentences()[1]
    assert "--seconds-per-image" in found.sentences()[1]


def test_hours_are_measured_where_the_weights_are(tmp_path: Path):
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path / "model")

    settings = {"dataset": "", "diffusion_model": str(folder), "num_inference_steps": 2}
    found = make_forecast(classes=2, seconds=None, **settings)

    assert found.seconds
    assert found.side == DiffusionPipeline.from_pretrained(folder)("cat", num_inference_steps=2).images[0].width


def test_plan_without_a_folder_reads_the_config():
    result = CliRunner().invoke(
        app, ["plan", "--run-config", "preset=fast num-inference-steps=9", "--seconds-per-image", "1"]
    )

    assert result.exit_code == 0
    assert re.search(
        r"Note: 'num-inference-steps' is 9, as you set it, and not 6, as preset 'fast' has it", result.output
    )
    assert "640 guided images of 32 pixels" in result.output


def test_folder_and_config_are_not_planned_together(tmp_path: Path):
    result = CliRunner().invoke(app, ["plan", str(tmp_path), "--classes", "3"])

    assert result.exit_code == 1
    assert "give the folder alone" in result.output
