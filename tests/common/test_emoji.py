"""The embedded emoji federation: what is held out is in no training image, and its images never change."""

import hashlib
import json
from itertools import product

import pytest
import torch

from common.clients.data import load_client_data, virtual_index
from common.config import Config
from common.datasets.embedded import emoji, emoji_sheets, public_emoji
from common.storage import installed

CLIENTS = ("noto", "twemoji", "openmoji", "emojione-monotone")
EMOJI = Config.from_run_config({"dataset": "emoji"})


def concepts(artists: tuple[str, ...], split: str) -> set[str]:
    pairs = product(artists, emoji.CLASS_NAMES)
    return {concept for artist, name in pairs for concept in emoji_sheets.list_concepts(artist, split, name)}


@pytest.mark.parametrize("domain", emoji.DOMAINS)
def test_each_class_has_as_many_images_in_every_split(domain: str):
    counts = {split: part.labels.bincount().tolist() for split, part in emoji.load(domain).items()}

    assert counts == {"train": [40] * 10, "validation": [10] * 10, "test": [50] * 10}


def test_images_never_change():
    digest = hashlib.sha256()
    for index in range(4):
        data = load_client_data({"partition-id": index}, EMOJI)
        for part in (data.train, data.validation, data.test):
            digest.update(part.images.read().numpy().tobytes() + part.labels.numpy().tobytes())

    assert digest.hexdigest() == "6357c81c59d7d84984320aa31a9226384f0e4226fa340163de5f00c797afd0b9"


def test_what_test_images_show_is_in_no_training_image():
    training = concepts((*CLIENTS, *public_emoji.ARTISTS), "train")

    assert training
    assert not training & concepts((*CLIENTS, *public_emoji.ARTISTS), "test")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The concepts that have been drawn since."""
    seen, drawing = set(), emoji_sheets.read_drawing
    monkeypatch.setattr(emoji_sheets, "read_drawing", lambda artist, name: seen.add(name) or drawing(artist, name))
    return seen


@pytest.mark.parametrize(("split", "purpose"), [("train", "public"), ("test", "public-held-out")])
def test_public_images_show_concepts_of_their_split(shown: set[str], split: str, purpose: str):
    public_emoji.make_images(40, seed=0, purpose=purpose)

    assert shown
    assert shown <= concepts(public_emoji.ARTISTS, split)


def test_test_images_show_concepts_of_their_split(shown: set[str]):
    emoji._draw.__wrapped__("noto", "test", 100)

    assert shown
    assert shown <= concepts(CLIENTS, "test")


def test_man_and_woman_that_do_the_same_are_in_one_split():
    known = json.loads(installed.find_installed(emoji_sheets.FOLDER / "concepts.json").read_text())["concepts"]

    teachers = [known[f"{who}-200d-1f3eb"] for who in ("1f9d1", "1f468", "1f469")]
    assert teachers == [teachers[0]] * 3


def test_public_artists_are_not_the_clients():
    assert not set(public_emoji.ARTISTS) & set(CLIENTS)


def test_public_set_is_the_same_for_a_seed():
    assert torch.equal(public_emoji.make_images(5, seed=3).images, public_emoji.make_images(5, seed=3).images)


def test_federation_brings_its_diffusion_model_and_number_of_images():
    assert (EMOJI.synthesis.diffusion_model, EMOJI.synthesis.images_per_class) == ("emoji", 60)


def test_clients_are_named_by_their_artists():
    data = load_client_data({"partition-id": 3}, EMOJI)

    assert (data.source, data.class_names) == ("emoji/monotone", list(emoji.CLASS_NAMES))
    assert virtual_index(data.source, EMOJI) == 3
    assert virtual_index("digits/mnist", EMOJI) is None


def test_unknown_artist_is_named():
    with pytest.raises(ValueError, match="got 'noto-2'"):
        emoji.load("noto-2")
