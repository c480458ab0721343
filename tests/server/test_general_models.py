"""General models and starts: trained once, kept across runs, offered only where they have learned something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from common.config import Config, ConfigError
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.models import architectures
from common.start import Start
from common.storage.caches import cache_root
from common.upload import weights_digest
from common.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from fedlmg_server.events import Note, Progress
from fedlmg_server.general import models, starts, training
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.general.models import load_general_model, make_general_models
from fedlmg_server.general.starts import load_replay, make_start
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.server.tiny_federation import two_colors

CPU = torch.device("cpu")
NAMES = ["small_mlp", "small_resnet"]


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> GeneralImages:
    """Dark and bright images, which a few updates tell apart."""
    shrunk = LabeledImages(two_colors().images[:, :, ::2, ::2].contiguous(), two_colors().labels)
    found = GeneralImages(LabeledView.of(shrunk), LabeledView.of(shrunk), "public", ("a note on classes",))
    for module in (models, starts):
        monkeypatch.setattr(module, "load_general_images", lambda run: found)
    return found


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setenv("FEDLMG_CACHE", str(tmp_path / "cache"))

    def make(name: str = "run", **changes: object) -> Run:
        settings = {"workspace": str(tmp_path / name), "general-updates": 8, "image-size": 16}
        config = Config.from_run_config(settings | {key.replace("_", "-"): value for key, value in changes.items()})
        workspace = Workspace.open(config, {})
        workspace.fix_class_names(["dark", "bright"])
        return Run(config, workspace, CPU)

    return make


def cached() -> list[Path]:
    return sorted((cache_root() / "general" / "models").glob("*.safetensors"))


def test_a_general_model_tells_the_classes_apart(make_run, images: GeneralImages):
    run = make_run(general_updates=40)
    made = make_general_models(run, ["small_resnet"])["small_resnet"]

    model = load_general_model(run, "small_resnet")

    with torch.no_grad():
        answers = model(run.preprocess(images.train.images.read().float() / 255)).argmax(1)
    assert (answers == images.train.labels).double().mean().item() == made.accuracy > 0.9
    assert made.is_offered


@pytest.mark.slow
def test_models_are_trained_side_by_side_as_one_by_one(make_run):
    alone = {name: make_general_models(make_run(name), [name])[name] for name in NAMES}
    for path in cached():
        path.unlink()

    together = make_general_models(make_run("both"), NAMES)

    assert {name: weights_digest(model.weights) for name, model in together.items()} == {
        name: weights_digest(model.weights) for name, model in alone.items()
    }


@pytest.mark.parametrize(("jobs", "accelerators", "expected"), [(3, 2, 2), (1, 2, 1), (3, 1, 1)])
def test_each_accelerator_trains_one_model_at_a_time(
    make_run, monkeypatch: pytest.MonkeyPatch, jobs: int, accelerators: int, expected: int
):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: accelerators)
    job = replace(models.make_job(make_run(), "small_mlp", 8), device=torch.device("cuda"))

    assert training.num_workers([job] * jobs) == expected


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator rounds otherwise than the processor")
def test_a_process_trains_on_the_device_of_its_rank(make_run, images, monkeypatch: pytest.MonkeyPatch):
    """The jobs' device computes nothing; the processes take the machine's, here its processor."""
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    jobs = [models.make_job(make_run(name), name, 8) for name in NAMES]
    alone = {job.architecture: job.run(images) for job in jobs}

    elsewhere = [replace(job, device=torch.device("meta")) for job in jobs]
    together = {job.architecture: made for job, made in training.run_all(elsewhere, images, lambda done, more: None)}

    assert {name: weights_digest(model.weights) for name, model in together.items()} == {
        name: weights_digest(model.weights) for name, model in alone.items()
    }


@pytest.mark.slow
def test_a_model_whose_process_dies_takes_no_other_with_it(make_run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "num_processors", lambda: 2)
    dying = "tests.server.bad_builders:dying_in_training"
    run = make_run(architectures=f"small_mlp,{dying}")

    made = make_general_models(run, ["small_mlp", dying])

    assert list(made) == ["small_mlp"]
    (note,) = (e.text for e in run.workspace.read_events() if isinstance(e, Note) and dying in e.text)
    assert note.endswith("the process that trained it ended, perhaps for want of memory")


def test_progress_tells_the_updates_of_all_models(make_run):
    run = make_run()

    make_general_models(run, ["small_mlp"])

    told = [event for event in run.workspace.read_events() if isinstance(event, Progress)]
    assert [(event.completed, event.total, event.unit) for event in told][-1] == (8, 8, "updates")


def test_updates_are_told_as_they_are_done_where_there_are_fewer_than_an_epoch_has(make_run, images: GeneralImages):
    told: list[int] = []
    job = models.make_job(make_run(), "small_mlp", 20)
    many = LabeledView.of(LabeledImages(images.train.images.read().repeat(80, 1, 1, 1), images.train.labels.repeat(80)))
    assert len(many) > 20 * training.BATCHES.student_batch_size

    job.run(replace(images, train=many), lambda done, more: told.append(done))

    assert sum(told) == 20


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


PHOTOS = {"initialisation": "imagenet", "student_initialisation": "imagenet", "general_updates": 2}


def test_a_general_model_of_micrographs_learns_from_mixed_images(make_run, images, monkeypatch: pytest.MonkeyPatch):
    job = models.make_job(make_run(looks="microscopy"), "small_mlp", 8)
    mixed = job.run(images)
    assert weights_digest(job.run(images).weights) == weights_digest(mixed.weights)

    monkeypatch.setattr(training.looks, "make_mixing", lambda looks, num_classes: None)

    assert weights_digest(job.run(images).weights) != weights_digest(mixed.weights)


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


def test_a_model_near_chance_is_told_and_not_offered(make_run, images: GeneralImages):
    run = make_run()
    images.train.labels[:] = torch.randint(0, 2, (64,), generator=torch.Generator().manual_seed(0))

    start = make_start(run, ["small_mlp"])

    assert start.models == {}
    assert any("near chance" in event.text for event in run.workspace.read_events() if isinstance(event, Note))


def test_a_run_without_a_general_model_says_so(make_run):
    with pytest.raises(ConfigError, match="no general model of 'small_mlp'"):
        load_general_model(make_run(), "small_mlp")


def test_a_start_holds_the_models_of_the_workspace_and_survives_the_wire(make_run):
    run = make_run(general_updates=40)
    start = make_start(run, ["small_mlp"])

    received = Start.from_records(start.to_records())

    assert received is not None
    assert received.digest("small_mlp") == start.digest("small_mlp")
    assert all(tensor.dtype == torch.float16 for tensor in received.models["small_mlp"].values())
    built, loaded = received.build("small_mlp"), load_general_model(run, "small_mlp")
    assert weights_digest(built.state_dict()) == weights_digest(loaded.state_dict())


def test_replay_keeps_to_its_bound_and_is_balanced(make_run):
    replay = load_replay(make_run(replay_megabytes=0.01))

    assert len(replay) == 10_000 // (3 * 16 * 16)
    assert abs(torch.bincount(replay.labels).diff().item()) <= 1


def test_no_megabytes_are_no_replay(make_run):
    assert len(make_start(make_run(replay_megabytes=0.0), []).replay) == 0


def test_replay_is_the_same_for_all_clients(make_run, images: GeneralImages, monkeypatch: pytest.MonkeyPatch):
    run = make_run()
    first = load_replay(run)
    monkeypatch.setattr(starts, "load_general_images", lambda run: replace(images, train=images.held_out))

    assert torch.equal(load_replay(run).images, first.images)


def test_a_start_with_a_value_beyond_float16_arrives_as_it_was(make_run, images: GeneralImages, monkeypatch):
    train = training.trainer.train

    def widened(model: torch.nn.Module, *arguments: object, **more: object) -> None:
        train(model, *arguments, **more)
        model.state_dict()["stem.1.running_var"][0] = 70_000

    monkeypatch.setattr(training.trainer, "train", widened)
    run = make_run()
    make_general_models(run, ["small_resnet"])

    sent = Start.from_records(make_start(run, ["small_resnet"]).to_records())

    assert sent.models["small_resnet"]["stem.1.running_var"][0] == 70_000


@pytest.mark.parametrize("num_held_out", [1, 2, 50])
def test_a_perfect_model_of_one_class_is_offered_and_not_called_chance(num_held_out: int):
    assert training.GeneralModel("small_mlp", ["cat"], {}, 1.0, num_held_out).is_offered
