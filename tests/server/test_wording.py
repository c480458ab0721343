"""Prompts of the operator's own: what each class is drawn from, and what is refused before any client trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config import Config, ConfigError
from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.texts import Texts
from fedlmg_server.diffusion.vocabulary import find_alike, open_vocabulary
from fedlmg_server.diffusion.wording import Wording
from tests.server import tiny_pipelines

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SynthesisConfig:
    folder = tiny_pipelines.save("stable-diffusion-1", tmp_path_factory.mktemp("pipeline"))
    return SynthesisConfig(diffusion_model=str(folder))


def test_prompt_of_a_class_is_its_own_or_else_that_of_all():
    config = SynthesisConfig(prompt="a slide of {class}", class_prompts="c3 = a slide of a tumour; ;x=y=z")

    wording = Wording.of(config)

    assert wording.prompt("C3") == "a slide of a tumour"
    assert wording.prompt("X") == "y=z"
    assert wording.prompt("Stroma") == "a slide of stroma"


def test_default_prompt_is_the_paper_s():
    assert Wording.of(SynthesisConfig()).prompt("Cat") == "an image of cat"


@pytest.mark.parametrize("texts", [False, True])
def test_denoiser_is_told_the_prompts_that_the_run_asks_for(config: SynthesisConfig, tmp_path: Path, texts: bool):
    """Kept prompts, and prompts that are encoded as they are asked for."""
    asked = replace(config, prompt="{class} seen from above", class_prompts="dog=a wolf", negative_prompt="blur")
    kept = [Texts(tmp_path, ["cat"])] if texts else []
    backend, plain = opening.load_backend(asked, CPU, *kept), opening.load_backend(config, CPU)
    encode = plain.family.condition.encode

    told = backend.condition(["cat", "dog"])["encoder_hidden_states"]

    expected = [encode(prompt)["encoder_hidden_states"] for prompt in ("blur", "blur", "cat seen from above", "a wolf")]
    torch.testing.assert_close(told, torch.cat(expected))


def test_two_classes_of_one_prompt_are_alike(config: SynthesisConfig):
    vocabulary = open_vocabulary(replace(config, class_prompts="a1=a cell; a2=a cell"))

    assert find_alike(vocabulary, ["a1", "a2", "a3"]) == [["a1", "a2"]]


def test_several_prompts_of_a_class_are_taken_in_turn_by_an_image_s_seed():
    wording = Wording.of(SynthesisConfig(prompt="a {class} | the {class}", class_prompts="c3=a tumour | a slide|cells"))

    assert [wording.prompt("C3", seed) for seed in range(4)] == ["a tumour", "a slide", "cells", "a tumour"]
    assert [wording.prompt("cat", seed) for seed in (6, 7)] == ["a cat", "the cat"]


@pytest.mark.parametrize("texts", [False, True])
def test_each_image_is_drawn_from_the_prompt_of_its_seed(config: SynthesisConfig, tmp_path: Path, texts: bool):
    asked = replace(config, class_prompts="dog=a wolf | a poodle")
    kept = [Texts(tmp_path, ["cat", "dog"])] if texts else []
    backend, plain = opening.load_backend(asked, CPU, *kept), opening.load_backend(config, CPU)
    encode = plain.family.condition.encode

    told = backend.condition(["dog", "dog", "cat"], [4, 5, 5])["encoder_hidden_states"]

    expected = [encode(prompt)["encoder_hidden_states"] for prompt in ("a wolf", "a poodle", "an image of cat")]
    torch.testing.assert_close(told[3:], torch.cat(expected))


def test_classes_that_share_one_of_their_prompts_are_alike(config: SynthesisConfig):
    vocabulary = open_vocabulary(replace(config, class_prompts="a1=a cell | a1; a2=a2 | a cell"))

    assert find_alike(vocabulary, ["a1", "a2", "a3"]) == [["a1", "a2"]]


@pytest.mark.parametrize("family", ["dit", "digits"])
def test_model_that_takes_no_prompts_refuses_them(tmp_path: Path, family: str):
    model = family if family == "digits" else str(tiny_pipelines.save(family, tmp_path))

    with pytest.raises(ConfigError, match="takes no prompts: remove 'prompt', 'class-prompts' and 'negative-prompt'"):
        open_vocabulary(SynthesisConfig(diffusion_model=model, negative_prompt="blur"))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"prompt": "a slide"}, r"'prompt' must be a text with \{class\} in it, as in 'an image of \{class\}'"),
        (
            {"prompt": "a {class} | a thing"},
            r"'prompt' must have \{class\} in each of its prompts, not so in 'a thing'",
        ),
        ({"class-prompts": "C3"}, "'class-prompts' must hold pairs 'class=prompt', and holds 'C3'"),
        ({"class-prompts": "C3=a; c3=b"}, "'class-prompts' names 'c3' twice: keep one of them, and put '|' between"),
    ],
)
def test_prompts_that_say_nothing_are_refused(keys: dict[str, str], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        Config.from_run_config(keys)
