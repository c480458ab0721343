"""What can only fail later fails before any client trains, in a sentence that names the key."""

import json
import re
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from common.config import Config, ConfigError
from fedlmg_server.diffusion import inspection
from fedlmg_server.diffusion.opening import _open_decoder
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
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "KolorsPipeline"}'),
            "KolorsPipeline",
        ),
        (lambda folder: next((folder / "vae").glob("*.safetensors")).unlink(), "no weights in safetensors format"),
        (lambda folder: (folder / "scheduler").rename(folder / "gone"), "has no scheduler/scheduler_config.json"),
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{"), "cannot open the tokenizer"),
    ],
    ids=["index", "family", "weights", "part", "tokenizer"],
)
def test_a_broken_pipeline_is_told(tmp_path: Path, spoil, sentence: str):
    spoil(tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline"))

    with pytest.raises(ConfigError, match=sentence):
        check(diffusion_model=str(tmp_path / "pipeline"))


def set_in(file: str, **values: object):
    """A change of one JSON file of a pipeline."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | values))

    return change


SCHEDULER, DENOISER, AUTOENCODER = "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            set_in("model_index.json", _class_name=["A", "B"]),
            "its class must be a text in its model_index.json, got",
        ),
        (
            lambda folder: (folder / "model_index.json").write_text("[]"),
            "its model_index.json must be a JSON object",
        ),
        (set_in("model_index.json", scheduler="DDIM"), "its model_index.json names no 'scheduler'"),
        (set_in("model_index.json", scheduler=["diffusers", ["DDIM"]]), "must give 'scheduler' a library and a class"),
        (
            set_in("model_index.json", scheduler=["diffusers", "EDMEulerScheduler"]),
            "its scheduler is EDMEulerScheduler",
        ),
        (set_in(SCHEDULER, _class_name="EDMEulerScheduler"), "its scheduler is EDMEulerScheduler, and must be one of"),
        (
            set_in(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"),
            "its model_index.json says PNDMScheduler, but its scheduler/scheduler_config.json is one of a FlowMatch",
        ),
        (set_in(SCHEDULER, _class_name=["DDIMScheduler"]), "its scheduler must be a text in its scheduler/"),
        (
            set_in(SCHEDULER, use_flow_sigmas=True),
            "its 'prediction_type' is epsilon, and must be one of flow_prediction",
        ),
        (set_in(SCHEDULER, sigma_max=80.0), "sets 'sigma_max', which is not supported"),
        (set_in(SCHEDULER, timestep_type="continuous"), "'timestep_type' must be 'discrete' in its scheduler/"),
        (set_in(SCHEDULER, prediction_type="flow_prediction"), "its 'prediction_type' is flow_prediction, and must be"),
        (
            set_in(SCHEDULER, prediction_type="v-prediction"),
            "its 'prediction_type' is v-prediction, and must be",
        ),
        (set_in(SCHEDULER, timestep_spacing="even"), "its 'timestep_spacing' is even, and must be one of leading"),
        (set_in(SCHEDULER, beta_schedule="cosine"), "its scheduler cannot be made of scheduler/scheduler_config.json"),
        (set_in(SCHEDULER, beta_schedule="linear", beta_start=-0.5), "its scheduler's betas make no noise schedule"),
        (
            set_in(SCHEDULER, rescale_betas_zero_snr=True),
            "ends in pure noise ('rescale_betas_zero_snr'), where",
        ),
        (set_in(DENOISER, in_channels=9), "says 'in_channels' 9, and must say 4"),
        (set_in(DENOISER, sample_size=None), "'sample_size' must be a whole number of at least 1"),
        (set_in(AUTOENCODER, _class_name="AutoencoderDC"), "its autoencoder is AutoencoderDC, and must be one of"),
        (set_in(AUTOENCODER, scaling_factor="0.18215"), "'scaling_factor' and 'shift_factor' must be numbers"),
        (set_in(AUTOENCODER, latents_mean=[0.0] * 4), "'latents_mean' and 'latents_std' must both hold 4 numbers"),
        (set_in(AUTOENCODER, block_out_channels=16), "'block_out_channels' must be a list of one level at least"),
        (set_in(AUTOENCODER, temperal_downsample=2), "'temperal_downsample' must be a list of one level at least"),
        (
            lambda folder: (folder / AUTOENCODER).write_text("[1]"),
            "its vae/config.json must be a JSON object",
        ),
        (lambda folder: (folder / DENOISER).write_text("no"), "its unet/config.json is no JSON"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_configs_that_make_no_sense_or_are_not_known_are_told(tmp_path: Path, spoil, sentence: str):
    spoil(tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline"))

    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check(diffusion_model=str(tmp_path / "pipeline"))


@pytest.mark.parametrize(
    ("part", "said", "sentence"),
    [
        (DENOISER, {"quant_method": "torchao"}, "its unet is quantised by torchao, which is not installed: 'pip"),
        (DENOISER, {"quant_method": "bitsandbytes"}, "its unet is quantised by bitsandbytes, which is not installed"),
        (DENOISER, {"quant_method": "gguf"}, "its unet must be quantised by bitsandbytes or torchao, if at all, got"),
        (DENOISER, {}, "its unet must be quantised by bitsandbytes or torchao, if at all, got None: take another"),
        ("text_encoder/config.json", {"quant_method": "torchao"}, "its text_encoder is quantised by torchao, which"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_quantised_weights_need_their_library(tmp_path: Path, monkeypatch, part: str, said: dict, sentence: str):
    set_in(part, quantization_config=said)(tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline"))
    monkeypatch.setattr(inspection, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check(diffusion_model=str(tmp_path / "pipeline"))


def test_quantised_weights_whose_library_is_there_are_let_through(tmp_path: Path, monkeypatch):
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline")
    set_in(DENOISER, quantization_config={"quant_method": "torchao"})(folder)
    monkeypatch.setattr(inspection, "find_spec", lambda name: name)

    check(diffusion_model=str(folder))


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


def test_a_decoder_for_other_latents_is_told(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny", "latent_channels": 16}))

    with pytest.raises(ConfigError, match="it decodes 16 channels, and latents of 'digits' have 4: take its"):
        check(guidance_decoder=str(tmp_path))


@pytest.mark.parametrize(
    ("decoder", "sentence"),
    [
        ("taesdxl", "'guidance-decoder' taesdxl is not for a StableDiffusionPipeline: take taesd"),
        ("madebyollin/taef1", "'guidance-decoder' madebyollin/taef1 is not for a StableDiffusionPipeline: take taesd"),
        ("taef2", "'guidance-decoder' taef2 is not published in diffusers' format: leave out the key"),
        ("taesana", "'guidance-decoder' taesana is not published in diffusers' format: leave out the key"),
        ("a b", "a hub id, got 'a b'; short names are taesd, taesdxl, taesd3, taef1"),
    ],
)
def test_a_decoder_made_for_other_models_is_told(decoder: str, sentence: str):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check(guidance_decoder=decoder)


def test_a_short_name_is_the_decoder_in_the_hub_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    revision, repository = "0" * 40, tmp_path / "models--madebyollin--taesd"
    folder = repository / "snapshots" / revision
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    for module in (huggingface_hub.constants, huggingface_hub.file_download, diffusers.models.modeling_utils):
        for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": True}.items():
            monkeypatch.setattr(module, name, value, raising=False)

    check(guidance_decoder="taesd")

    assert _open_decoder("taesd", torch.float32).decoder is not None


@pytest.mark.parametrize(
    ("family", "size", "sentence"),
    [("", 33, "must be a multiple of 4 for it, got 33: try 32"), ("dit", 32, "images of 16 pixels alone: leave out")],
)
def test_a_size_that_the_model_cannot_draw_is_told(tmp_path: Path, family: str, size: int, sentence: str):
    model = str(tiny_pipelines.save(family, tmp_path / "pipeline")) if family else "digits"

    with pytest.raises(ConfigError, match=sentence):
        check(diffusion_model=model, diffusion_size=size)


@pytest.mark.parametrize(("decision", "fails"), [("drop", False), ("quarantine", True)])
def test_folders_of_virtual_clients_are_held_against_the_model_s_classes(tmp_path: Path, decision: str, fails: bool):
    draw_classes(tmp_path / "images", ("0", "1", "zero"), count=2)
    settings = {"folders": str(tmp_path / "images"), "num_clients": 2, "unknown_classes": decision}

    if fails:
        with pytest.raises(ConfigError, match=r"only 0 of 2 virtual clients can take part .* its class 'zero'"):
            check(**settings)
    else:
        check(**settings)
