"""What `fedlmg pretrain` offers for a sharper autoencoder: more latent channels, and a perceptual term."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from common.config import ConfigError
from common.models.small import SmallResNet
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import pretraining
from fedlmg_server.diffusion.pretraining import tiny_pipeline, train
from fedlmg_server.diffusion.pretraining.config import PretrainConfig
from fedlmg_server.diffusion.pretraining.perceptual import Perceptual

TINY = PretrainConfig(batch_size=4, vae_steps=2, denoiser_steps=1, warmup_steps=1)
IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SHOWN = IMAGES.float() / 127.5 - 1


def make_perceptual() -> Perceptual:
    torch.manual_seed(0)
    return Perceptual(SmallResNet(2), PreprocessSpec(32))


def test_a_blurred_image_is_farther_than_a_slightly_darker_one_and_the_same_is_no_way_off():
    perceptual = make_perceptual()

    blurred, darker, same = (perceptual(other, SHOWN) for other in (gaussian_blur(SHOWN, [5, 5]), 0.95 * SHOWN, SHOWN))

    assert blurred > 2 * darker > 0
    assert same == 0


def test_the_perceptual_term_sharpens_the_decoder_and_teaches_the_classifier_nothing():
    torch.manual_seed(0)
    vae = tiny_pipeline.build_pipeline(channels=(16, 32)).vae
    perceptual = make_perceptual()
    before = {name: tensor.clone() for name, tensor in perceptual.state_dict().items()}
    objective = train.Autoencoding(vae, replace(TINY, perceptual_weight=2.0), perceptual).train()

    objective(SHOWN, torch.Generator().manual_seed(0)).backward()
    with_term = vae.decoder.conv_out.weight.grad.clone()
    objective.zero_grad()
    replaced = train.Autoencoding(vae, TINY)
    replaced(SHOWN, torch.Generator().manual_seed(0)).backward()

    assert (with_term - vae.decoder.conv_out.weight.grad).abs().max() > 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in perceptual.state_dict().items())
    assert all(parameter.grad is None for parameter in perceptual.parameters())


def test_a_pipeline_of_more_latent_channels_is_trained_and_opens_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "sample", lambda *_, **__: torch.zeros(2, 3, 32, 32))
    train.train(IMAGES, torch.arange(4) % 2, ["cat", "dog"], tmp_path, replace(TINY, latent_channels=8))

    parts = {part: json.loads((tmp_path / part / "config.json").read_text()) for part in ("vae", "unet")}
    assert parts["vae"]["latent_channels"] == parts["unet"]["in_channels"] == parts["unet"]["out_channels"] == 8
    again = train.train(IMAGES, torch.arange(4) % 2, ["cat", "dog"], tmp_path / "tuned", TINY, start=tmp_path)
    assert again.vae.config.latent_channels == 8


def test_other_latents_than_those_of_the_start_are_told(tmp_path: Path):
    tiny_pipeline.build_pipeline(channels=(16, 32)).save_pretrained(tmp_path / "start")

    with pytest.raises(ConfigError, match=r"--latent-channels is 8, but .*start has 4: leave the option out"):
        train.train(
            *(IMAGES, torch.zeros(4).long(), ["cat"], tmp_path, replace(TINY, latent_channels=8)),
            start=tmp_path / "start",
        )


def test_no_latent_channels_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="--latent-channels must be at least 1, got 0"):
        pretraining.pretrain("digits", tmp_path, replace(TINY, latent_channels=0))
