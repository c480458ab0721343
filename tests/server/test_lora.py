"""LoRA weights change what a denoiser draws, by as much as is asked for, and only where they were made for it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.config import Config, ConfigError
from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import lora, opening
from fedlmg_server.diffusion.description import describe
from fedlmg_server.diffusion.texts import Texts
from fedlmg_server.preflight import check_config
from fedlmg_server.synthesis.generate import generate_batch
from fedlmg_server.synthesis.plan import plan_images
from tests.server import tiny_flow, tiny_lora, tiny_pipelines

CPU, NAMES = torch.device("cpu"), ["cat", "dog"]
TINY = SynthesisConfig(num_inference_steps=2, noise_editing_steps=1)
ADDED = {
    "stable-diffusion-1": tiny_pipelines,
    "stable-diffusion-xl": tiny_pipelines,
    **dict.fromkeys(("stable-diffusion-3", "sana", "flux-dev", "z-image", "lumina-2", "qwen-image"), tiny_flow),
}
FAST = ("stable-diffusion-1", "stable-diffusion-3")
ENCODERS = {
    "stable-diffusion-1": ("text_encoder",),
    "stable-diffusion-3": ("text_encoder", "text_encoder_2"),
    "stable-diffusion-xl": ("text_encoder", "text_encoder_2"),
    "flux-dev": ("text_encoder",),
}
with_encoders = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ENCODERS]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """From a family to the folders of its pipeline and of its LoRA weights, with those of its text encoders or without,
    made once."""
    root = tmp_path_factory.mktemp("made")

    def make(family: str, encoders: tuple[str, ...] = ()) -> tuple[Path, Path]:
        pipeline, weights = root / family / "pipeline", root / family / ("lora" + "-with-text" * bool(encoders))
        if not pipeline.exists():
            ADDED[family].save(family, pipeline)
        if not weights.exists():
            tiny_lora.save(ADDED[family].FAMILIES[family](), weights, encoders=encoders)
        return pipeline, weights

    return make


def size_of(family: str) -> int:
    return 0 if family == "stable-diffusion-1" else tiny_flow.SIZE


def draw(pipeline: Path, guidance, setting: str = "") -> torch.Tensor:
    config = replace(TINY, diffusion_model=str(pipeline), diffusion_lora=setting)
    config = replace(config, diffusion_size=size_of(pipeline.parent.name))
    return generate_batch(opening.load_backend(config, CPU), guidance, plan_images(0, "a", NAMES, 1), NAMES, config)


def check(pipeline: Path, setting: object) -> None:
    check_config(Config.from_run_config({"diffusion-model": str(pipeline), "diffusion-lora": str(setting)}))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ADDED]
)
def test_images_change_with_the_scale_and_not_at_all_at_zero(family: str, made, guidance):
    pipeline, folder = made(family)
    check(pipeline, f"{folder}@0.5")

    plain, none, half, whole = (draw(pipeline, guidance, s and f"{folder}@{s}") for s in ("", "0", "0.5", "1"))

    assert torch.equal(none, plain)
    assert not torch.allclose(half, plain, atol=0.002)
    assert not torch.allclose(whole, half, atol=0.002)


@with_encoders
def test_prediction_is_that_of_diffusers_with_weights_beside_its_own(family: str, made):
    folder, weights = made(family, ENCODERS[family])
    check(folder, f"{weights}@0.7")
    config = replace(TINY, diffusion_model=str(folder), diffusion_lora=f"{weights}@0.7")
    config = replace(config, diffusion_size=size_of(family))
    fused, beside = (opening.load_backend(each, CPU) for each in (config, replace(config, diffusion_lora="")))
    beside.pipeline.load_lora_weights(str(weights), adapter_name="mine")
    beside.pipeline.set_adapters("mine", 0.7)

    predictions = []
    for backend in (fused, beside):
        backend.set_timesteps(4)
        x_t = backend.initial_noise([1, 2])
        predictions.append(backend.predict(x_t, 1, backend.condition(NAMES), 3.0).noise)

    torch.testing.assert_close(*predictions, atol=1e-4, rtol=1e-4)
    assert not any(".lora_" in name for name, _ in fused.denoiser.named_parameters())


@with_encoders
def test_kept_prompts_are_those_of_the_changed_text_encoders(family: str, made, tmp_path: Path):
    folder, weights = made(family, ENCODERS[family])
    config, texts = replace(TINY, diffusion_model=str(folder)), Texts(tmp_path, NAMES)

    def encode(setting: str, *texts: Texts) -> dict:
        return opening.load_backend(replace(config, diffusion_lora=setting), CPU, *texts).condition(NAMES)

    plain, half, whole = (encode(setting, texts) for setting in ("", f"{weights}@0.5", f"{weights}@1"))

    for key, value in encode(f"{weights}@0.5").items():
        torch.testing.assert_close(half[key], value, rtol=0, atol=0)
    asked = "pooled_projections" if family == "flux-dev" else "encoder_hidden_states"
    assert not torch.allclose(half[asked], plain[asked], atol=0.002)
    assert not torch.allclose(half[asked], whole[asked], atol=0.002)


def test_quantised_parts_keep_the_weights_beside_their_own(made):
    folder, weights = made("stable-diffusion-1", ENCODERS["stable-diffusion-1"])
    config = replace(TINY, diffusion_model=str(folder))
    fused, beside = (opening.load_backend(config, CPU).pipeline.components for _ in range(2))
    for part in ("unet", "text_encoder"):
        beside[part].hf_quantizer = object()

    for parts in (fused, beside):
        lora.add_lora(parts, f"{weights}@0.7", describe(str(folder)))

    x, t, states, tokens = torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 5, 16), torch.tensor([[0, 5, 6, 1]])
    predicted = [parts["unet"](x, t, states).sample for parts in (fused, beside)]
    read = [parts["text_encoder"](tokens).last_hidden_state for parts in (fused, beside)]
    torch.testing.assert_close(*predicted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*read, atol=1e-4, rtol=1e-4)
    assert any(".lora_" in name for name, _ in beside["unet"].named_parameters())


def pickled(folder: Path) -> None:
    torch.save(load_file(next(folder.glob("*.safetensors"))), folder / "pytorch_lora_weights.bin")
    next(folder.glob("*.safetensors")).unlink()


def change(edit):
    """A change of the tensors in a folder's file."""

    def spoil(folder: Path) -> None:
        file = next(folder.glob("*.safetensors"))
        save_file({key: value.clone() for key, value in edit(load_file(file)).items()}, file)

    return spoil


ATTENTION = "text_encoder{}.text_model.encoder.layers.0.self_attn.{}_proj.lora_{}.weight"


def text(encoder: str = "", projection: str = "q", width: int = 16) -> dict[str, torch.Tensor]:
    """Weights of a text encoder's attention."""
    shapes = {"A": (2, width), "B": (width, 2)}
    return {ATTENTION.format(encoder, projection, side): torch.ones(shape) for side, shape in shapes.items()}


SPOILT = {
    "pickle": (pickled, "must hold one file in safetensors format, and holds 0"),
    "two": (
        lambda folder: shutil.copy(next(folder.glob("*.safetensors")), folder / "b.safetensors"),
        "format, and holds 2",
    ),
    "broken": (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"no"), "as LoRA weights: "),
    "empty": (change(lambda weights: {}), "the file is empty: take one made for this model"),
    "no LoRA": (
        change(lambda weights: {"conv.weight": torch.ones(2)}),
        "it changes conv, and must change unet or text_encoder alone",
    ),
    "second text encoder": (change(lambda weights: weights | text("_2")), "it changes text_encoder_2, and must change"),
    "width of text": (change(lambda weights: weights | text(width=8)), "do not have the shapes of this model's: take"),
    "text elsewhere": (
        change(lambda weights: weights | text() | text(projection="z")),
        "only 2 of its 4 weights belong to this model",
    ),
    "text not finite": (change(lambda weights: {k: v * torch.nan for k, v in text().items()}), "are not finite: train"),
    "width": (
        change(lambda weights: {key: value.repeat(2, 2) for key, value in weights.items()}),
        "do not have the shapes of this model's: take one made for it",
    ),
    "elsewhere": (
        change(lambda weights: weights | {k.replace(".1.", ".7."): v for k, v in weights.items()}),
        "of its 72 weights belong to this model: take one made for it",
    ),
    "not finite": (change(lambda weights: {k: v * torch.nan for k, v in weights.items()}), "are not finite: train"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_weights_that_cannot_be_added_are_told_before_clients_train(spoilt: str, made, tmp_path: Path):
    pipeline, folder = made("stable-diffusion-1")
    spoil, sentence = SPOILT[spoilt]
    shutil.copytree(folder, tmp_path / "lora")
    spoil(tmp_path / "lora")

    with pytest.raises(ConfigError, match=re.escape(sentence)) as raised:
        check(pipeline, f"{tmp_path / 'lora'}@1")

    assert str(raised.value).startswith("cannot open 'diffusion-lora' /")


@pytest.mark.parametrize("model", ["stable-diffusion-3", pytest.param("stable-diffusion-xl", marks=pytest.mark.slow)])
def test_weights_of_another_model_are_told_before_clients_train(model: str, made):
    pipeline, _ = made("stable-diffusion-1")

    with pytest.raises(ConfigError, match="cannot open 'diffusion-lora'"):
        check(pipeline, f"{made(model)[1]}@1")


@pytest.mark.parametrize("family", ["pixel", "dit"])
def test_model_that_takes_no_lora_is_told(family: str, made, tmp_path: Path):
    tiny_pipelines.save(family, tmp_path)

    with pytest.raises(ConfigError, match=r"diffusers adds none to a D.*Pipeline: leave out 'diffusion-lora'"):
        lora.check_lora(f"{made('stable-diffusion-1')[1]}@1", describe(str(tmp_path)))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("/nowhere@1", "config key 'diffusion-lora' must name an existing folder, got '/nowhere'"),
        ("/nowhere", "config key 'diffusion-lora' must be FOLDER@scale, as in"),
        ("/nowhere@much", "config key 'diffusion-lora' must be FOLDER@scale, as in"),
        ("@1", "config key 'diffusion-lora' must be FOLDER@scale, as in"),
    ],
)
def test_setting_that_names_no_folder_with_a_scale_is_told(setting: str, sentence: str, made):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check(made("stable-diffusion-1")[0], setting)


def test_missing_library_is_named(made, monkeypatch: pytest.MonkeyPatch):
    pipeline, folder = made("stable-diffusion-1")
    monkeypatch.setattr(lora, "USE_PEFT_BACKEND", False)

    with pytest.raises(ConfigError, match="'diffusion-lora' needs the extra 'lora': install it"):
        check(pipeline, f"{folder}@1")


def test_run_s_record_holds_the_weights(made):
    setting = f"{made('stable-diffusion-1')[1]}@0.5"

    assert Config.from_run_config({"diffusion-lora": setting}).settings()["diffusion-lora"] == setting
