"""Prompts are encoded once, and who finds them needs no text encoder."""

from pathlib import Path

import pytest
import torch

from common.config import ConfigError
from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.texts import Texts
from fedlmg_server.synthesis.generate import generate_batch
from fedlmg_server.synthesis.plan import plan_images
from tests.server import tiny_flow, tiny_pipelines

CPU, NAMES = torch.device("cpu"), ["cat", "dog"]
FAMILIES = {"stable-diffusion-xl": tiny_pipelines, "sana": tiny_flow, "pixart-alpha": tiny_flow, "z-image": tiny_flow}


@pytest.fixture(scope="module", params=FAMILIES)
def config(request, tmp_path_factory) -> SynthesisConfig:
    folder = FAMILIES[request.param].save(request.param, tmp_path_factory.mktemp(request.param))
    return SynthesisConfig(diffusion_model=str(folder), diffusion_size=32, num_inference_steps=2, noise_editing_steps=1)


def test_image_of_a_kept_prompt_is_the_image(config, guidance, tmp_path: Path):
    planned = plan_images(0, "site-a", NAMES, 1)
    own, kept, again = (
        opening.load_backend(config, CPU, *texts) for texts in ([], *[[Texts(tmp_path, NAMES)] for _ in range(2)])
    )

    images = [generate_batch(backend, guidance, planned, NAMES, config) for backend in (own, kept, again)]

    assert torch.equal(images[1], images[0])
    assert torch.equal(images[2], images[0])


def test_process_that_draws_holds_no_text_encoder(config, tmp_path: Path):
    backend = opening.load_backend(config, CPU, Texts(tmp_path, NAMES))

    read = [part for name, part in backend.pipeline.components.items() if name.startswith(("text", "token"))]

    assert read
    assert set(read) == {None}


def test_encoders_are_opened_once(config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opening.load_backend(config, CPU, Texts(tmp_path, NAMES))
    monkeypatch.setattr(opening, "_open_encoder", lambda *_: pytest.fail("it was opened again"))

    again = opening.load_backend(config, CPU, Texts(tmp_path, NAMES))

    assert again.condition(["dog", "cat"])


def test_class_that_was_not_known_before_is_encoded_when_it_is_asked_for(config, tmp_path: Path):
    backend = opening.load_backend(config, CPU, Texts(tmp_path, ["cat"]))

    later = backend.condition(["dog"])

    expected = opening.load_backend(config, CPU).condition(["dog"])
    assert later.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(later[key], value, rtol=0, atol=0)


def test_two_classes_that_read_alike_are_told_when_they_are_asked_for(tmp_path: Path):
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path / "pipeline")
    config, alike = SynthesisConfig(diffusion_model=str(folder)), ["猫", "犬"]

    backend = opening.load_backend(config, CPU, Texts(tmp_path / "prompts", alike))

    with pytest.raises(ConfigError, match=r"cannot tell 'an image of .*give one"):
        backend.condition(alike)
