"""Every family of transformers draws its own pipeline's image, and goes through the same guided sampling."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny

from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.description import describe
from fedlmg_server.synthesis.generate import generate_batch, sampling_settings
from fedlmg_server.synthesis.guidance import gradient
from fedlmg_server.synthesis.plan import plan_images
from fedlmg_server.synthesis.sampler import guide, sample
from tests.server import tiny_flow, tiny_pipelines
from tests.server.own_pipelines import draw_by_own_pipeline
from tests.server.test_preflight import check

CPU, STEPS = torch.device("cpu"), 3
NAMES = tiny_pipelines.CLASS_NAMES
CONFIG = SynthesisConfig(num_inference_steps=STEPS, noise_editing_steps=1, diffusion_size=tiny_flow.SIZE)
SOLVED = ("sana", "pixart-alpha", "pixart-sigma")
"""Families whose own pipeline takes DPM-Solver++."""


@pytest.fixture(scope="module", params=tiny_flow.FAMILIES)
def opened(request, tmp_path_factory):
    """The family's name, its backend and the config."""
    folder = tiny_flow.save(request.param, tmp_path_factory.mktemp(request.param))
    sampler = "dpm-solver++" if request.param in SOLVED else "ddim"
    config = replace(CONFIG, diffusion_model=str(folder), sampler=sampler)
    return request.param, opening.load_backend(config, CPU), config


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_unguided_image_is_that_of_the_family_s_own_pipeline(opened, scale):
    family, backend, config = opened
    backend.set_timesteps(STEPS)
    noise = backend.initial_noise([5])
    settings = replace(sampling_settings(config), guidance_scale=scale)

    image = sample(backend, noise, backend.condition(["cat"]), settings)

    own = draw_by_own_pipeline(family, backend, scale, noise, STEPS)
    assert image.std() > 0.01
    torch.testing.assert_close(image, own, atol=1e-4, rtol=0)


def test_guided_step_lowers_the_loss(opened):
    _, backend, config = opened
    backend.set_timesteps(STEPS)
    x_t, condition = backend.initial_noise([5, 6]), backend.condition(NAMES)
    settings = replace(sampling_settings(config), guidance_strength=0.01)

    def brightness(images: torch.Tensor) -> torch.Tensor:
        return images.pow(2).mean((1, 2, 3))

    with torch.no_grad():
        plain = brightness(backend.decode(backend.predict(x_t, 1, condition, 3.0).x_0))
    _, guided = guide(backend, x_t, 1, condition, settings, brightness)

    with torch.no_grad():
        assert (brightness(backend.decode(guided.x_0)) < plain).all()


def test_guided_image_does_not_depend_on_its_batch(opened, guidance):
    _, backend, config = opened
    planned = plan_images(0, "site-a", ["a rather long name", "dog"], 1)
    names = ["a rather long name", "dog"]

    together = generate_batch(backend, guidance, planned, names, config)

    alone = generate_batch(backend, guidance, planned[1:], names, config)
    assert together.shape == (2, 3, tiny_flow.SIZE, tiny_flow.SIZE)
    torch.testing.assert_close(alone[0], together[1], atol=2 / 255, rtol=0)


def test_gradient_reaches_the_noise_through_the_denoiser(opened):
    _, backend, _ = opened
    backend.set_timesteps(STEPS)
    x_T = backend.initial_noise([1, 2]).requires_grad_()

    x_0 = backend.predict(x_T, 0, backend.condition(NAMES), 3.0).x_0

    found = gradient(backend.decode_for_guidance(x_0).flatten(1).sum(1), x_T)
    assert (found.flatten(1).norm(dim=1) > 0).all()


def test_class_changes_the_prediction(opened):
    _, backend, _ = opened
    backend.set_timesteps(STEPS)
    x_T = backend.initial_noise([1])

    cat, dog = (backend.predict(x_T, 0, backend.condition([name]), 3.0).x_0 for name in ("cat", "dog"))

    assert not torch.allclose(cat, dog, atol=1e-6)


def test_pipeline_is_let_through_before_clients_train(opened):
    _, _, config = opened

    check(diffusion_model=config.diffusion_model, diffusion_size=tiny_flow.SIZE, sampler=config.sampler)


@pytest.mark.parametrize(("family", "multiple"), [("flux-dev", 4), ("sana", 2), ("stable-diffusion-3", 4)])
def test_size_that_the_family_cannot_draw_is_told(family, multiple, tmp_path: Path):
    folder = tiny_flow.save(family, tmp_path)

    with pytest.raises(ValueError, match=f"'diffusion-size' must be a multiple of {multiple} for it, got 33: try 32"):
        describe(str(folder), 33)


@pytest.mark.parametrize("family", ["sana", "flux-dev", "flux-2-klein"])
def test_tiny_decoder_serves_gradients(family, tmp_path: Path):
    folder = tiny_flow.save(family, tmp_path / "pipeline")
    sizes = {f"{half}_block_out_channels": (8, 8) for half in ("encoder", "decoder")}
    tiny = AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    tiny.save_pretrained(tmp_path / "decoder")
    config = replace(CONFIG, diffusion_model=str(folder), guidance_decoder=str(tmp_path / "decoder"))
    backend = opening.load_backend(config, CPU)
    x_0 = torch.randn(1, *backend.family.latent_shape, requires_grad=True)

    images = backend.decode_for_guidance(x_0)

    assert images.shape == backend.decode(x_0).shape
    assert gradient(images.flatten(1).sum(1), x_0).any()


def test_model_s_own_size_is_drawn_where_none_is_asked_for(tmp_path: Path):
    folder = tiny_flow.save("stable-diffusion-3", tmp_path)

    assert describe(str(folder)).side == 8
    assert describe(str(folder), 12).side == 6
