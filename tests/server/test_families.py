"""Every supported family of diffusion models goes through the same guided sampling."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config import ConfigError, synthesis
from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import location, opening
from fedlmg_server.diffusion.prediction import weights
from fedlmg_server.synthesis.generate import generate_batch
from fedlmg_server.synthesis.guidance import gradient
from fedlmg_server.synthesis.plan import plan_images
from tests.server import tiny_pipelines

TINY = SynthesisConfig(num_inference_steps=3, noise_editing_steps=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=tiny_pipelines.FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    return tiny_pipelines.save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def family(folder):
    """The backend of a family, opened once, and its config."""
    return opened(folder)


def opened(folder: Path, **changes):
    config = replace(TINY, diffusion_model=str(folder), **changes)
    return opening.load_backend(config, CPU), config


DRAWINGS = plan_images(0, "site-a", tiny_pipelines.CLASS_NAMES, 2)


@pytest.mark.parametrize("through_denoiser", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_guided_images_do_not_depend_on_their_batch(family, guidance, monkeypatch, through_denoiser):
    monkeypatch.setattr(synthesis, "OURS", replace(synthesis.OURS, through_denoiser=through_denoiser))
    backend, config = family

    together = generate_batch(backend, guidance, DRAWINGS, tiny_pipelines.CLASS_NAMES, config)

    alone = generate_batch(backend, guidance, DRAWINGS[2:3], tiny_pipelines.CLASS_NAMES, config)
    assert together.shape == (4, 3, 16, 16)
    assert 0 <= together.min() < together.max() <= 1
    torch.testing.assert_close(alone[0], together[2], atol=2 / 255, rtol=0)


@pytest.mark.parametrize(
    "sampler", ["ddim", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpm", "dpm-solver++", "lcm"))]
)
def test_every_sampler_draws_the_same_image_again(folder, guidance, sampler):
    backend, config = opened(folder, sampler=sampler)

    first, again = (generate_batch(backend, guidance, DRAWINGS[1:3], ["cat", "dog"], config) for _ in range(2))

    assert torch.isfinite(first).all()
    assert torch.equal(first, again)


@pytest.mark.parametrize("sampler", ["ddpm", "dpm-solver++", "lcm"])
def test_noise_that_a_sampler_adds_is_the_image_s_own(sampler, guidance, tmp_path):
    backend, config = opened(tiny_pipelines.save("stable-diffusion-1", tmp_path), sampler=sampler)

    together = generate_batch(backend, guidance, DRAWINGS, tiny_pipelines.CLASS_NAMES, config)

    alone = generate_batch(backend, guidance, DRAWINGS[2:3], tiny_pipelines.CLASS_NAMES, config)
    torch.testing.assert_close(alone[0], together[2], atol=2 / 255, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm-solver++"])
def test_schedule_that_ends_in_pure_noise_is_guided_where_there_is_signal(sampler, guidance, tmp_path):
    backend, config = opened(tiny_pipelines.save_without_terminal_signal(tmp_path), sampler=sampler)
    names = tiny_pipelines.CLASS_NAMES

    guided, plain = (generate_batch(backend, guide, DRAWINGS, names, config) for guide in (guidance, None))

    assert guided.isfinite().all()
    assert not torch.allclose(guided, plain, atol=0.01)


def test_weights_of_the_variant_that_is_there_are_opened(tmp_path):
    pipeline = tiny_pipelines.FAMILIES["stable-diffusion-1"]()
    pipeline.save_pretrained(tmp_path, variant="fp16")

    backend, _ = opened(tmp_path)

    theirs = pipeline.unet.state_dict()
    opened_weights = backend.denoiser.state_dict()
    assert opened_weights.keys() == theirs.keys()
    torch.testing.assert_close(opened_weights, theirs, rtol=0, atol=0)


def test_plain_weights_are_preferred_to_those_of_a_variant(tmp_path):
    plain, half = (tiny_pipelines.FAMILIES["pixel"]() for _ in range(2))
    plain.save_pretrained(tmp_path)
    half.save_pretrained(tmp_path, variant="fp16")

    backend, _ = opened(tmp_path)

    theirs = plain.unet.state_dict()
    torch.testing.assert_close(dict(backend.denoiser.state_dict()), dict(theirs), rtol=0, atol=0)


def test_weights_of_two_variants_are_not_chosen_from(tmp_path):
    for variant in ("fp16", "ema"):
        tiny_pipelines.FAMILIES["pixel"]().save_pretrained(tmp_path, variant=variant)

    with pytest.raises(ConfigError, match=r"cannot open .* as a diffusion pipeline"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", ("stable-diffusion-v1-5/stable-diffusion-v1-5", None)),
        ("a/b@refs/pr/3", ("a/b", "refs/pr/3")),
    ],
)
def test_revision_stands_behind_the_hub_id(source: str, expected: tuple[str, str | None]):
    assert location.split_revision(location.find_pipeline(source)) == expected


def test_folder_with_an_at_sign_has_no_revision(tmp_path):
    folder = tiny_pipelines.save("pixel", tmp_path / "mine@home")

    backend, _ = opened(folder)

    assert backend.denoiser is not None


def test_weights_that_are_pickled_are_not_opened(tmp_path):
    tiny_pipelines.FAMILIES["pixel"]().save_pretrained(tmp_path, safe_serialization=False)

    with pytest.raises(ConfigError, match=r"cannot open .* as a diffusion pipeline"):
        opened(tmp_path)


def test_index_without_a_family_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"its class must be a text in its model_index\.json, got none: use one of"):
        opened(tmp_path)


def test_gradient_reaches_the_noise_through_the_denoiser(family, guidance):
    backend, config = family
    backend.set_timesteps(config.num_inference_steps)
    x_T = backend.initial_noise([1, 2]).requires_grad_()
    condition = backend.condition(["cat", "dog"])

    x_0 = backend.predict(x_T, 0, condition, 3.0).x_0

    loss = guidance.full_loss(torch.tensor([0, 1]))
    assert (gradient(loss(backend.decode_for_guidance(x_0)), x_T).flatten(1).norm(dim=1) > 0).all()


def test_prediction_adds_up_to_its_input(family):
    backend, config = family
    backend.set_timesteps(config.num_inference_steps)
    x_t = backend.initial_noise([1, 2])

    prediction = backend.predict(x_t, 1, backend.condition(["cat", "dog"]), 3.0)

    signal, sigma = weights(backend.scheduler, 1)
    torch.testing.assert_close(signal * prediction.x_0 + sigma * prediction.noise, x_t, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["stable-diffusion-1", "stable-diffusion-xl", "dit", "pixel-with-classes"])
def test_class_changes_the_prediction(family, tmp_path):
    backend, config = opened(tiny_pipelines.save(family, tmp_path))
    backend.set_timesteps(config.num_inference_steps)
    x_T = backend.initial_noise([1])

    cat, dog = (backend.predict(x_T, 0, backend.condition([name]), 3.0).x_0 for name in ("cat", "dog"))

    assert not torch.allclose(cat, dog, atol=1e-4)


@pytest.mark.parametrize(("family", "nearest"), [("dit", "cat"), ("pixel-with-classes", "cat")])
def test_class_that_the_model_does_not_know_is_named(family, nearest, tmp_path):
    backend, _ = opened(tiny_pipelines.save(family, tmp_path))

    with pytest.raises(ConfigError, match=f"no class 'cats'.*{nearest}"):
        backend.condition(["cats"])


@pytest.mark.parametrize(
    ("first", "second"),
    [("squamous cell carcinoma in situ", "squamous cell carcinoma invasive"), ("\u732b", "\u72ac")],
    ids=["too long", "of unknown characters"],
)
def test_two_classes_that_are_one_prompt_are_told(first, second, tmp_path):
    backend, _ = opened(tiny_pipelines.save("stable-diffusion-1", tmp_path))

    with pytest.raises(ConfigError, match=r"cannot tell 'an image of .*' from 'an image of .*give one"):
        backend.condition([first, second])


def test_family_that_is_not_supported_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "KolorsPipeline"}')

    with pytest.raises(ConfigError, match="its class is KolorsPipeline, and must be one of Stable"):
        opened(tmp_path)


def test_decoder_that_cannot_be_opened_is_named(tmp_path):
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path)

    with pytest.raises(ConfigError, match=r"'guidance-decoder' must be an existing folder or a hub id, got"):
        opened(folder, guidance_decoder=str(tmp_path / "nowhere"))


def test_tiny_decoder_serves_gradients_and_the_full_one_the_image(tmp_path):
    from diffusers import AutoencoderTiny

    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline")
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        scaling_factor=1.0,
    )
    tiny.save_pretrained(tmp_path / "decoder")
    x_0 = torch.randn(1, 4, 8, 8)

    backend, _ = opened(folder, guidance_decoder=str(tmp_path / "decoder"))

    plain, _ = opened(folder)
    assert torch.equal(backend.decode(x_0), plain.decode(x_0))
    assert backend.decode_for_guidance(x_0).shape == plain.decode(x_0).shape
    assert not torch.equal(backend.decode_for_guidance(x_0), plain.decode(x_0))


def test_latents_are_decoded_as_the_autoencoder_s_config_says(tmp_path):
    mean, std = [0.5, -0.5, 0.25, 0.0], [2.0, 1.0, 0.5, 1.0]
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline")
    config = json.loads((folder / "vae/config.json").read_text())
    changes = {"scaling_factor": 2.0, "shift_factor": 0.1, "latents_mean": mean, "latents_std": std}
    (folder / "vae/config.json").write_text(json.dumps(config | changes))
    backend, _ = opened(folder)
    x_0 = torch.randn(1, 4, 8, 8)

    images = backend.decode(x_0)

    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    expected = backend.vae.decode(x_0 * std / 2.0 + mean + 0.1).sample / 2 + 0.5
    torch.testing.assert_close(images, expected.clamp(0, 1))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm-solver++", "lcm"])
@pytest.mark.parametrize("clips", [True, False])
def test_clean_pixels_are_clipped_where_the_model_s_own_scheduler_clips(tmp_path, sampler, clips):
    folder = tiny_pipelines.save("pixel", tmp_path)
    set_scheduler(folder, clip_sample=clips, clip_sample_range=0.01)
    backend, config = opened(folder, sampler=sampler)
    backend.set_timesteps(config.num_inference_steps)
    x_t = backend.initial_noise([1])

    for t in backend.scheduler.timesteps:
        x_t = backend.scheduler.step(torch.zeros_like(x_t), t, x_t, generator=[torch.Generator()]).prev_sample

    assert (x_t.abs().max() <= 0.0101) == clips


def set_scheduler(folder: Path, **changes: object) -> None:
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("is_strict", [True, False])
def test_safety_checker_of_the_pipeline_judges_the_images(tmp_path: Path, is_strict: bool):
    folder = tiny_pipelines.save_with_safety_checker(tmp_path / "pipeline", is_strict)
    backend = opening.load_backend(SynthesisConfig(diffusion_model=str(folder)), CPU)

    assert backend.check_safety(torch.rand(3, 3, 16, 16)) == [not is_strict] * 3


@pytest.mark.slow
def test_compiled_image_is_the_plain_one_but_for_rounding(guidance, tmp_path):
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path)
    calls = torch._dynamo.utils.counters["stats"]
    calls.clear()

    plain, compiled = (
        generate_batch(backend, guidance, DRAWINGS[:2], tiny_pipelines.CLASS_NAMES, config)
        for backend, config in (opened(folder), opened(folder, compile=True))
    )

    assert calls["unique_graphs"] >= 2
    torch.testing.assert_close(compiled, plain, atol=2 / 255, rtol=0)
