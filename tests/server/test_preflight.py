"""What can only fail later fails before any client trains, in a sentence that names the key."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.config import Config, ConfigError
from fedlmg_server.preflight import check_config
from tests.common.pictures import draw_classes
from tests.server import tiny_pipelines
from tests.server.any_model import draws_labels

PIXELS = "'vit_b_16' does not work with images of 100 pixels: 'vit_b_16' needs an image size that is a multiple of 16"


def check(**settings: object) -> None:
    check_config(Config.from_run_config({key.replace("_", "-"): value for key, value in settings.items()}))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"student_architecture": "resnt18"}, "names 'resnt18', no architecture; the nearest is resnet18"),
        ({"architectures": "small_resnet,small_mpl"}, "names 'small_mpl', no architecture; the nearest is small_mlp"),
        ({"student_architecture": "vit_b_16", "image_size": 100}, f"config key 'student-architecture': {PIXELS}"),
        (
            {"architectures": "maxvit_t", "image_size": 50},
            "'architectures': 'maxvit_t' does not work with images of 50",
        ),
        ({"architectures": "no_such_module:net"}, "builder 'no_such_module:net' cannot be imported"),
        ({"public_images": "/nowhere"}, "config key 'public-images': there is no folder /nowhere"),
        ({"folders": "/nowhere"}, "config key 'folders': there is no folder /nowhere"),
        ({"diffusion_model": "/nowhere/at all"}, "an existing folder or a hub id, got '/nowhere/at all'"),
        ({"guidance_decoder": "/nowhere"}, "'guidance-decoder' must be an existing folder or a hub id, got '/nowhere'"),
        (
            {"initialisation": "/nowhere.safetensors"},
            "config key 'initialisation': 'initialisation' must be `imagenet`",
        ),
        ({"initialisation": "imagenet"}, "torchvision has no ImageNet weights of 'small_convnext'"),
        ({"student_initialisation": "/nowhere"}, "config key 'student-initialisation': /nowhere cannot be read"),
        ({"student_initialisation": "imagenet"}, "torchvision has no ImageNet weights of 'small_resnet'"),
        (
            {"student_initialisation": "average", "architectures": "small_mlp", "upload": "own"},
            "no client uploads a 'small_resnet'",
        ),
        ({"aggregation": "merge", "warm_start": False}, "'aggregation' is 'merge', but clients share no start"),
        ({"dataset": "emoji", "diffusion_model": "digits"}, "only 0 of 4 virtual clients can take part ('"),
        ({"max_classes": 9}, "it names 10 classes, but 'max-classes' allows 9"),
        ({"max_images": 100}, "its 10 classes ask for 160 images, but 'max-images' allows 100"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_a_run_that_must_fail_fails_before_clients_train(settings: dict, sentence: str):
    with pytest.raises(ConfigError) as raised:
        check(**settings)

    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [{}, {"dataset": "mixed"}, {"dataset": "emoji"}, {"client_classes": "0-5;3-8"}, {"architectures": "vit_b_16"}],
    ids=str,
)
def test_a_run_that_can_work_is_let_through(settings: dict):
    check(**settings)


def test_weights_that_fit_no_net_are_told(tmp_path: Path):
    save_file({"other": torch.zeros(3)}, tmp_path / "start.safetensors")

    with pytest.raises(ConfigError, match=r"no tensor of '.*' fits a 'small_mlp'"):
        check(initialisation=str(tmp_path / "start.safetensors"), architectures="small_mlp")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "model_index.json").write_text("{"), "as a diffusion pipeline"),
        (lambda folder: (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'), "FluxPipeline"),
        (lambda folder: next((folder / "vae").glob("*.safetensors")).unlink(), "no weights in safetensors format"),
        (lambda folder: (folder / "scheduler").rename(folder / "gone"), "it has no folder 'scheduler'"),
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{"), "cannot open the tokenizer"),
    ],
    ids=["index", "family", "weights", "part", "tokenizer"],
)
def test_a_broken_pipeline_is_told(tmp_path: Path, spoil, sentence: str):
    spoil(tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline"))

    with pytest.raises(ConfigError, match=sentence):
        check(diffusion_model=str(tmp_path / "pipeline"))


@pytest.mark.parametrize("family", ["stable-diffusion-1", "stable-diffusion-xl", "latent-consistency", "pixel"])
def test_a_whole_pipeline_is_let_through(tmp_path: Path, family: str):
    check(diffusion_model=str(tiny_pipelines.save(family, tmp_path / "pipeline")))


def test_a_model_made_for_classes_that_names_none_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="is made for classes and names none"):
        check(diffusion_model=draws_labels(tmp_path / "pipeline", []))


def test_a_decoder_of_another_class_is_told(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))

    with pytest.raises(ConfigError, match=re.escape("its class is AutoencoderKL, and must be AutoencoderTiny")):
        check(guidance_decoder=str(tmp_path))


@pytest.mark.parametrize(("decision", "fails"), [("drop", False), ("quarantine", True)])
def test_folders_of_virtual_clients_are_held_against_the_model_s_classes(tmp_path: Path, decision: str, fails: bool):
    draw_classes(tmp_path / "images", ("0", "1", "zero"), count=2)
    settings = {"folders": str(tmp_path / "images"), "num_clients": 2, "unknown_classes": decision}

    if fails:
        with pytest.raises(ConfigError, match=r"only 0 of 2 virtual clients can take part .* its class 'zero'"):
            check(**settings)
    else:
        check(**settings)
