"""Pretraining makes a true Stable Diffusion pipeline, and an interruption changes nothing."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from common.config import ConfigError
from common.config.run import LARGEST_SEED
from common.config.synthesis import SynthesisConfig
from common.datasets.labeled_images import LabeledImages
from fedlmg_server import pretraining
from fedlmg_server.diffusion import location, opening
from fedlmg_server.diffusion.description import describe
from fedlmg_server.diffusion.pretraining import latent_space, optimising, tiny_pipeline, train
from fedlmg_server.diffusion.pretraining.config import PretrainConfig
from fedlmg_server.synthesis.generate import sampling_settings
from fedlmg_server.synthesis.sampler import sample

TINY = PretrainConfig(batch_size=4, vae_steps=2, denoiser_steps=3, warmup_steps=1, checkpoint_seconds=0)
IMAGES = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 2
SAMPLE = train.sample


def weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    parts = {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module", autouse=True)
def _few_samples_and_channels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "sample", lambda *_, **__: torch.zeros(2, 3, 32, 32))
        patch.setattr(tiny_pipeline, "build_pipeline", partial(tiny_pipeline.build_pipeline, channels=(16, 32)))
        yield


def test_the_largest_seed_samples():
    images = SAMPLE(tiny_pipeline.build_pipeline(), ["cat"], per_class=1, seed=LARGEST_SEED)

    assert images.isfinite().all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(folder: Path) -> StableDiffusionPipeline:
    """Without interruption, into `folder`."""
    return train.train(IMAGES, LABELS, ["cat", "dog"], folder, TINY)


def test_folder_opens_as_a_stable_diffusion_pipeline(trained, folder):
    opened = StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True)

    assert type(opened) is StableDiffusionPipeline
    assert opened.vae.config.scaling_factor == trained.vae.config.scaling_factor
    for name, tensor in weights(trained).items():
        torch.testing.assert_close(weights(opened)[name].float(), tensor, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("checkpoints", [1, 4], ids=["autoencoder", "denoiser"])
def test_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(trained, tmp_path, monkeypatch, checkpoints):
    written = []

    def save_then_stop(*arguments) -> None:
        save_training(*arguments)
        written.append(1)
        if len(written) == checkpoints:
            raise KeyboardInterrupt

    save_training = optimising.save_training
    monkeypatch.setattr(optimising, "save_training", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train.train(IMAGES, LABELS, ["cat", "dog"], tmp_path, TINY)

    continued = weights(train.train(IMAGES, LABELS, ["cat", "dog"], tmp_path, TINY))

    for name, tensor in weights(trained).items():
        assert torch.equal(continued[name], tensor), name


@pytest.mark.parametrize("image_size", [32, 64])
def test_the_denoiser_of_64_pixels_works_on_as_many_latents_as_that_of_32(image_size: int):
    pipeline = tiny_pipeline.build_pipeline(image_size)

    latents = pipeline.vae.encode(torch.zeros(1, 3, image_size, image_size)).latent_dist.mean

    assert latents.shape == (1, 4, 8, 8)
    assert pipeline.unet.config.sample_size == 8
    assert pipeline.vae.decode(latents).sample.shape == (1, 3, image_size, image_size)


def test_standardised_latents_decode_as_before():
    pipeline = tiny_pipeline.build_pipeline()
    pipeline.vae.quant_conv.bias.data += torch.arange(8.0)
    mean, std = latent_space.encode_images(pipeline.vae, IMAGES)
    with torch.no_grad():
        before = pipeline.vae.decode(mean).sample

    standard_mean, standard_std = latent_space.standardise_latents(pipeline.vae, mean, std)

    encoded_mean, encoded_std = latent_space.encode_images(pipeline.vae, IMAGES)
    spread = standard_mean.var((0, 2, 3)) + standard_std.square().mean((0, 2, 3))
    torch.testing.assert_close(encoded_mean, standard_mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(encoded_std, standard_std, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(spread, torch.ones(4), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(standard_mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(pipeline.vae.decode(standard_mean).sample, before, atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("trained")
def test_fine_tuning_starts_from_the_pipeline_it_is_given_and_does_not_name_its_folder(folder, tmp_path):
    untouched = PretrainConfig(vae_steps=0, denoiser_steps=0)

    tuned = train.train(IMAGES, LABELS, ["cat", "dog"], tmp_path, untouched, folder)

    given = StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    assert torch.equal(tuned.unet.conv_in.weight, given.unet.conv_in.weight.float())
    written = list(tmp_path.rglob("*.json"))
    assert written
    assert not [file for file in written if str(folder) in file.read_text()]


@pytest.mark.parametrize("name", location.EMBEDDED)
def test_shipped_model_is_small_and_opens(name: str):
    folder = location.embedded_folder(name)

    StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True)

    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12_000_000


def test_classes_that_are_one_prompt_are_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot tell class '\u732b' from '\u72ac'"):
        train.train(IMAGES, LABELS, ["\u732b", "\u72ac"], tmp_path, TINY)


@pytest.mark.parametrize("image_size", [0, 4, 33])
def test_images_that_cannot_be_halved_are_told(tmp_path: Path, image_size: int):
    with pytest.raises(ConfigError, match=f"must be a multiple of 8, got {image_size}"):
        pretraining.pretrain("digits", tmp_path, PretrainConfig(), image_size)


def test_a_flow_is_trained_on_the_line_from_image_to_noise_to_give_noise_less_image():
    """Re-derived in float64 with the random numbers that the objective draws."""
    pipeline = tiny_pipeline.build_pipeline()
    pipeline.register_modules(scheduler=tiny_pipeline.make_scheduler("flow"))
    tokens = train.tokenize(pipeline, ["an image of cat"])
    objective = train.Denoising(pipeline, tokens).eval()
    latents, prompt = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(4).long()
    random = torch.Generator().manual_seed(2)
    noise, s = torch.randn(latents.shape, generator=random), torch.rand(4, generator=random)

    with torch.no_grad():
        loss = objective(latents, prompt, torch.Generator().manual_seed(2))
        share = s.double()[:, None, None, None]
        noisy = (1 - share) * latents.double() + share * noise.double()
        states = pipeline.text_encoder(tokens)[0][prompt]
        output = pipeline.unet(noisy.float(), 1000 * s, states).sample.double()

    expected = (output - (noise - latents).double()).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.fixture(scope="module")
def flow_folder(folder, trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a flow that went on from the pipeline of another objective."""
    out = tmp_path_factory.mktemp("flow")
    train.train(IMAGES, LABELS, ["cat", "dog"], out, replace(TINY, objective="flow", vae_steps=0), start=folder)
    return out


def test_a_pipeline_of_one_objective_goes_on_as_one_of_another(folder, flow_folder):
    assert describe(str(flow_folder)).is_flow
    assert not describe(str(folder)).is_flow


def test_a_trained_flow_draws_its_own_pipeline_s_image(flow_folder):
    config = SynthesisConfig(diffusion_model=str(flow_folder), num_inference_steps=4, sampler="dpm-solver++")
    backend = opening.load_backend(config, torch.device("cpu"))
    backend.set_timesteps(4)
    noise = backend.initial_noise([5])

    image = sample(backend, noise, backend.condition(["cat"]), sampling_settings(config))

    asked = {"guidance_scale": config.guidance_scale, "num_inference_steps": 4, "output_type": "pt"}
    own = backend.pipeline("an image of cat", latents=noise, **asked).images
    torch.testing.assert_close(image, own, atol=1e-4, rtol=0)


def test_every_class_is_drawn_as_often_as_every_other(tmp_path, monkeypatch):
    drawn: list[int] = []
    images = torch.stack([torch.full((3, 32, 32), 10 * (row > 0), dtype=torch.uint8) for row in range(40)])
    labels = (torch.arange(40) > 0).long()
    monkeypatch.setattr(
        train.Autoencoding,
        "forward",
        lambda self, batch, generator: drawn.extend(batch[:, 0, 0, 0].tolist()) or self.vae.quant_conv.weight.sum(),
    )

    train.train(
        images, labels, ["rare", "common"], tmp_path, replace(TINY, batch_size=64, vae_steps=4, denoiser_steps=0)
    )

    rare = sum(value == min(drawn) for value in drawn) / len(drawn)
    assert 0.4 < rare < 0.6


def test_every_look_of_an_image_keeps_its_label():
    labels = torch.tensor([0, 1, 1])
    part = LabeledImages(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8), labels)
    images = pretraining.PublicImages(["cat", "dog"], part, part, "3 images")

    varied = pretraining.vary_looks(images, replace(TINY, looks="microscopy"))

    assert varied.train.labels.tolist() == labels.tolist() * pretraining.VERSIONS
    assert len(varied.train.images) == 3 * pretraining.VERSIONS
    assert not torch.equal(varied.train.images[:3], varied.train.images[3:6])
    assert len(varied.held_out.images) == 3


@pytest.mark.parametrize(("option", "value"), [("objective", "epsilon"), ("looks", "sepia")])
def test_an_unknown_choice_is_told_with_the_known_ones(tmp_path: Path, option: str, value: str):
    with pytest.raises(ConfigError, match=f"--{option} must be one of .*, got {value}"):
        pretraining.pretrain("digits", tmp_path, replace(TINY, **{option: value}))


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    vae = tiny_pipeline.build_pipeline().vae
    objective = train.Autoencoding(vae, replace(TINY, kl_weight=1e-3))
    shown = IMAGES[:4].float() / 127.5 - 1

    def gradient(parts: int) -> torch.Tensor:
        objective.zero_grad()
        generator = torch.Generator().manual_seed(0)
        for share, part in optimising._split((shown,), parts):
            (objective(*part, generator) * share).backward()
        return torch.cat([parameter.grad.flatten() for parameter in objective.parameters()])

    torch.testing.assert_close(gradient(3), gradient(1), atol=1e-5, rtol=1e-3)


def test_steps_are_as_many_as_fit_into_the_time():
    phase = optimising.Phase("denoiser", 1, 0.1, seconds=10.0)

    steps = optimising._steps_within(phase, 35, (5, time.monotonic() - 3.0))

    assert steps == pytest.approx(100, abs=1)


def test_a_training_by_the_clock_says_its_steps_and_is_not_begun_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(optimising, "PROBE", (1, 3))
    timed = replace(TINY, hours=0.3 / 3600)

    first = weights(train.train(IMAGES, LABELS, ["cat", "dog"], tmp_path, timed))

    told = json.loads((tmp_path / "training.json").read_text())
    assert min(told["vae_steps"], told["denoiser_steps"]) >= 3
    again = weights(train.train(IMAGES, LABELS, ["cat", "dog"], tmp_path, timed))
    assert json.loads((tmp_path / "training.json").read_text())["denoiser_steps"] == told["denoiser_steps"]
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_more_parts_than_images_are_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="--batch-parts must be from 1 to 4, got 5"):
        pretraining.pretrain("digits", tmp_path, replace(TINY, parts=5))
