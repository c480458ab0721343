"""General models: what they learn and start from, and how long they are kept."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from common.config import ConfigError
from common.models import architectures
from common.upload import weights_digest
from common.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from fedlmg_server.events import Note
from fedlmg_server.general import models, training
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.general.models import load_general_model, make_general_models
from tests.server import tiny_general
from tests.server.tiny_general import cached

images, make_run = tiny_general.images, tiny_general.make_run


PHOTOS = {"initialisation": "imagenet", "student_initialisation": "imagenet", "general_updates": 2}


def test_a_general_model_tells_the_classes_apart(make_run, images: GeneralImages):
    run = make_run(general_updates=40)
    made = make_general_models(run, ["small_resnet"])["small_resnet"]

    model = load_general_model(run, "small_resnet")

    with torch.no_grad():
        answers = model(run.preprocess(images.train.images.read().float() / 255)).argmax(1)
    assert (answers == images.train.labels).double().mean().item() == made.accuracy > 0.9
    assert made.is_offered


def test_another_run_takes_the_model_from_the_cache(make_run, monkeypatch: pytest.MonkeyPatch):
    first = make_general_models(make_run("first"), ["small_mlp"])["small_mlp"]
    monkeypatch.setattr(training.Job, "run", None)

    second = make_general_models(make_run("second"), ["small_mlp"])["small_mlp"]

    assert weights_digest(second.weights) == weights_digest(first.weights)


@pytest.mark.parametrize(
    "changed",
    [{"looks": "none"}, {"seed": 1}, {"general_updates": 9}, {"class": "grey"}, {"image": 255}, {"recipe": "another"}],
)
def test_whatever_a_model_depends_on_makes_another(
    make_run, changed: dict, images: GeneralImages, monkeypatch: pytest.MonkeyPatch
):
    make_general_models(make_run(), ["small_mlp"])
    run = make_run(
        "other", **{key: value for key, value in changed.items() if key in ("looks", "seed", "general_updates")}
    )
    if "class" in changed:
        run.workspace.fix_class_names(["dark", "grey"])
    if "image" in changed:
        images.train.images.sources[0][0, 0, 0, 0] = 255
    if "recipe" in changed:
        monkeypatch.setattr(training, "RECIPE", training.RECIPE + 1)

    make_general_models(run, ["small_mlp"])

    assert len(cached()) == 2


def test_a_run_keeps_its_models_whatever_becomes_of_the_cache(make_run, monkeypatch: pytest.MonkeyPatch):
    run = make_run()
    make_general_models(run, ["small_mlp"])
    cached()[0].unlink()
    monkeypatch.setattr(models, "load_general_images", None)

    assert list(make_general_models(run, ["small_mlp"])) == ["small_mlp"]


def test_a_builder_of_the_operator_s_gets_a_general_model(make_run):
    name = "tests.server.tiny_builder:build"

    made = make_general_models(make_run(student_architecture=name), [name])

    assert list(made) == [name]


@pytest.mark.parametrize("name", ["no_such_net", "small_resnet+nothing"])
def test_an_architecture_that_cannot_be_built_is_told_and_left_out(make_run, name: str):
    run = make_run()

    made = make_general_models(run, [name, "small_mlp+groupnorm"])

    notes = [event.text for event in run.workspace.read_events() if isinstance(event, Note)]
    assert list(made) == ["small_mlp+groupnorm"]
    assert notes[0] == "a note on classes"
    assert notes[1].startswith(f"there is no general model of '{name}', so its clients train from scratch: ")


@pytest.mark.parametrize(
    ("named", "made"), [("small_mlp", []), ("small_mlp,small_shufflenet_v2", ["small_shufflenet_v2"])]
)
def test_a_large_net_that_a_client_chose_has_a_general_model_only_if_the_config_names_it(
    make_run, monkeypatch: pytest.MonkeyPatch, named: str, made: list[str]
):
    monkeypatch.setattr(models, "MOST_WEIGHTS", 1000)
    run = make_run(architectures=named)

    found = make_general_models(run, ["small_shufflenet_v2"])

    assert list(found) == made
    told = [event.text for event in run.workspace.read_events() if isinstance(event, Note)]
    assert any("name it in 'architectures' to have one" in text for text in told) == (not made)


def test_a_general_model_starts_from_imagenet_weights_of_torchvisions_cache(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(1)
    kept = architectures.build("squeezenet1_1", 1000, 224).state_dict()
    (tmp_path / "checkpoints").mkdir()
    address = architectures.torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url
    torch.save(kept, tmp_path / "checkpoints" / address.rsplit("/", 1)[1])
    run = make_run(student_architecture="squeezenet1_1", image_size=32, **PHOTOS)

    made = make_general_models(run, ["squeezenet1_1"])["squeezenet1_1"]

    name = "features.3.squeeze.weight"
    assert run.preprocess == PreprocessSpec(32, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(made.weights[name].float(), kept[name], rtol=0, atol=0.01)


def test_without_the_imagenet_weights_there_is_no_general_model(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def download(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    run = make_run(student_architecture="squeezenet1_1", image_size=32, **PHOTOS)

    made = make_general_models(run, ["squeezenet1_1"])

    notes = [event.text for event in run.workspace.read_events() if isinstance(event, Note)]
    assert made == {}
    assert "not in torchvision's cache and cannot be downloaded" in notes[1]


def test_an_architecture_without_imagenet_weights_starts_untrained(make_run):
    assert list(make_general_models(make_run(**PHOTOS), ["small_mlp"])) == ["small_mlp"]


def test_a_run_without_a_general_model_says_so(make_run):
    with pytest.raises(ConfigError, match="no general model of 'small_mlp'"):
        load_general_model(make_run(), "small_mlp")
