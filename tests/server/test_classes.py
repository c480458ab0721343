"""One client's class ends no run: it is left out for that client, and the client, terminal and report are told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config import Config
from common.config.synthesis import SynthesisConfig
from common.upload import Upload, weights_digest
from fedlmg_server.collection import classes
from fedlmg_server.collection.validation import validate_uploads
from fedlmg_server.diffusion.vocabulary import Vocabulary, open_vocabulary
from fedlmg_server.distillation import teachers
from fedlmg_server.events import ClientEvent, Note
from fedlmg_server.run import Run
from fedlmg_server.synthesis import store
from fedlmg_server.synthesis.estimate import count_planned_images
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server import tiny_pipelines
from tests.server.any_model import draws_anything, draws_labels
from tests.server.bad_builders import without_layers

LONG = "a very long name indeed of some "


def validated(folder: Path, spaces: dict[str, list[str]], model: str = "digits", **settings: object) -> Run:
    """A run after validation of a client for each of these class spaces."""
    settings = {"images-per-class": 2, "diffusion-model": model, **settings}
    config = Config.from_run_config(settings | {"workspace": str(folder / "workspace")})
    run = Run(config, Workspace.open(config, {}))
    for client, names in spaces.items():
        make_upload(client, names).save(run.workspace.upload(client))
    validate_uploads(run)
    return run


def notes(run: Run) -> list[str]:
    return [event.text for event in run.workspace.read_events() if isinstance(event, Note)]


def embedded(folder: Path) -> tuple[str, str]:
    return "digits", "zero"


def dit(folder: Path) -> tuple[str, str]:
    return str(tiny_pipelines.save("dit", folder)), "zebra"


def pixels(folder: Path) -> tuple[str, str]:
    return draws_labels(folder, ["0", "1", "dog"]), "zebra"


@pytest.mark.parametrize(
    ("make", "known"),
    [(embedded, ["0", "1"]), (dit, ["dog", "house cat"]), (pixels, ["0", "dog"])],
    ids=["embedded", "dit", "pixels"],
)
def test_a_class_that_the_model_cannot_draw_is_in_no_part_of_the_run(tmp_path: Path, make: Callable, known: list[str]):
    model, strange = make(tmp_path / "model")

    run = validated(tmp_path, {"a": known, "b": [known[0], strange]}, model)

    assert run.class_names == sorted(known)
    assert [upload.held_class_names for upload in run.uploads] == [known, known[:1]]
    assert {image.class_name for upload in run.uploads for image in store.planned_images(run, upload)} == set(known)
    assert run.num_images == count_planned_images(run) == 6
    assert notes(run)[0].startswith(f"client 'b': its class '{strange}' is left out: ")


def test_without_its_class_a_client_teaches_as_before_of_the_others(tmp_path: Path):
    run = validated(tmp_path, {"b": ["0", "zero", "1"]})
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    whole = Upload.load(run.workspace.upload("b")).classifier()
    with torch.no_grad():
        logits = whole(run.uploads[0].preprocess(images / 255))[:, [0, 2]]

    taught = teachers.predict_with(run, run.uploads[0], images)

    torch.testing.assert_close(taught, logits.softmax(1), rtol=1e-3, atol=1e-4)
    assert {len(moments.mean) for moments in run.uploads[0].statistics.values() if moments.mean.dim() == 2} <= {2}


def test_the_same_upload_is_held_though_a_class_of_it_is_left_out(tmp_path: Path):
    run = validated(tmp_path, {"b": ["0", "zero"]})

    assert run.uploads[0].manifest.checksum == Upload.load(run.workspace.upload("b")).manifest.checksum


@pytest.mark.parametrize("names", [["zero", "one"], ["0", "zero"]])
def test_a_client_of_which_nothing_remains_goes_and_the_others_go_on(tmp_path: Path, names: list[str]):
    config = Config.from_run_config({"workspace": str(tmp_path)})
    run = Run(config, Workspace.open(config, {}))
    make_upload("a", ["0", "1"]).save(run.workspace.upload("a"))
    counts = [0, 2] if "0" in names else [1, 1]
    saying(make_upload("b", names), class_counts=counts).save(run.workspace.upload("b"))

    refused = validate_uploads(run)

    assert [upload.client for upload in run.uploads] == ["a"]
    assert refused["b"].startswith("client 'b': its class")


@pytest.mark.parametrize("counts", [[2, 2], [2, 0]])
def test_a_client_that_ignores_what_it_must_leave_out_does_not_end_the_run(tmp_path: Path, counts: list[int]):
    config = Config.from_run_config({"workspace": str(tmp_path)})
    run = Run(config, Workspace.open(config, {}))
    make_upload("a", ["0", "1"]).save(run.workspace.upload("a"))
    saying(make_upload("b", ["2", "zero"]), class_counts=counts).save(run.workspace.upload("b"))
    run.workspace.class_notes.note_told({"b": {"2": "another client's class reads like it"}})

    refused = validate_uploads(run)

    assert [upload.client for upload in run.uploads] == ["a"]
    assert refused["b"].startswith("client 'b': its classes '2', 'zero' are left out: ")


def test_a_net_without_a_layer_of_logits_goes_with_its_class_and_the_others_go_on(tmp_path: Path):
    builder = "tests.server.bad_builders:without_layers"
    settings = {"workspace": str(tmp_path), "architectures": f"small_resnet,{builder}"}
    config = Config.from_run_config(settings)
    run = Run(config, Workspace.open(config, {}))
    make_upload("a", ["0", "1"]).save(run.workspace.upload("a"))
    net = without_layers(2, 32)
    arrays = dict(net.state_dict())
    upload = saying(make_upload("b", ["0", "zero"]), architecture=builder, sha256=weights_digest(arrays))
    replace(upload, arrays=arrays, statistics={}).save(run.workspace.upload("b"))

    refused = validate_uploads(run)

    assert [upload.client for upload in run.uploads] == ["a"]
    assert "its class 'zero' is left out" in refused["b"]


def test_a_key_sends_the_client_of_an_unknown_class_to_quarantine(tmp_path: Path):
    run = validated(tmp_path, {"a": ["0", "1"], "b": ["0", "zero"]}, **{"unknown-classes": "quarantine"})

    assert [upload.client for upload in run.uploads] == ["a"]
    reason = json.loads((run.workspace.quarantine / "b" / "reason.json").read_text())["reason"]
    assert reason.startswith("client 'b': its class 'zero' is left out: the embedded diffusion model 'digits'")


def test_of_two_names_that_the_tokenizer_reads_alike_the_one_that_most_clients_have_stays(tmp_path: Path):
    model = str(tiny_pipelines.save("stable-diffusion-1", tmp_path / "model"))
    spaces = {"a": ["cat", LONG + "one"], "b": ["cat", LONG + "two"], "c": ["cat", LONG + "two"]}

    run = validated(tmp_path, spaces, model)

    assert run.class_names == [LONG + "two", "cat"]
    assert run.workspace.class_notes.left_out.keys() == {"a"}
    assert "cannot tell 'a very long" in notes(run)[0]


def test_a_fixed_class_stays_however_many_clients_have_one_that_reads_alike():
    vocabulary = Vocabulary("the model", tokenize=lambda prompt: tuple(map(ord, prompt[:20])))
    spaces = {"a": [LONG + "two"], "b": [LONG + "two"]}

    found = classes.find_unusable(spaces, vocabulary, fixed=[LONG + "one"])

    assert {client: list(why) for client, why in found.items()} == {"a": [LONG + "two"], "b": [LONG + "two"]}


def test_a_class_that_comes_after_the_question_is_left_out_for_its_client_and_the_others_are_merged(tmp_path: Path):
    config = Config.from_run_config({"images-per-class": 2, "workspace": str(tmp_path)})
    run = Run(config, Workspace.open(config, {}))
    run.workspace.fix_class_names(["0", "1"])
    for client, names in {"a": ["0", "1"], "late": ["0", "1", "2"]}.items():
        make_upload(client, names).save(run.workspace.upload(client))

    validate_uploads(run)

    assert run.class_names == ["0", "1"]
    assert [upload.class_names for upload in run.uploads] == [["0", "1"]] * 2
    (note,) = notes(run)
    assert note.startswith(
        "client 'late': its class '2' is left out: '2' came after the classes of this run were fixed"
    )


def test_a_student_of_guided_images_learns_a_late_class(tmp_path: Path):
    config = Config.from_run_config({"aggregation": "specific-teacher", "workspace": str(tmp_path)})

    assert not classes.is_closed(config, ["0", "1"])


def test_a_class_is_known_in_any_spelling(tmp_path: Path):
    model = draws_labels(tmp_path / "model", ["House Cat", "dog"])

    run = validated(tmp_path, {"a": ["house cat", "Dog"], "b": ["puppy"]}, model, **{"class-aliases": "puppy=DOG"})

    assert run.class_names == ["House Cat", "dog"]
    assert run.workspace.class_notes.left_out == {}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max-classes": 2}, "it names 3 classes, but 'max-classes' allows 2"),
        ({"max-images": 5}, "its 3 classes ask for 6 images, but 'max-images' allows 5"),
    ],
)
def test_a_client_that_asks_for_too_much_goes_with_the_number(tmp_path: Path, settings: dict, sentence: str):
    run = validated(tmp_path, {"a": ["0", "1"], "b": ["0", "1", "2"]}, **settings)

    assert [upload.client for upload in run.uploads] == ["a"]
    (event,) = [event for event in run.workspace.read_events() if isinstance(event, ClientEvent)]
    assert (event.name, event.state) == ("b", "quarantined")
    assert sentence in event.reason


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max-classes": 3}, "all clients together have 5 classes, but 'max-classes' allows 3"),
        ({"max-images": 9}, "all clients together have 14 images, but 'max-images' allows 9"),
    ],
)
def test_where_all_together_ask_for_too_much_the_largest_goes(tmp_path: Path, settings: dict, sentence: str):
    model = draws_anything(tmp_path / "model")
    spaces = {"a": ["cat", "dog"], "b": ["cat", "dog"], "c": ["x", "y", "z"]}

    run = validated(tmp_path, spaces, model, **settings)

    assert [upload.client for upload in run.uploads] == ["a", "b"]
    assert sentence in json.loads((run.workspace.quarantine / "c" / "reason.json").read_text())["reason"]


def test_one_client_with_classes_of_its_own_turns_out_none_of_those_that_share_theirs():
    shared, strange = [f"class {number}" for number in range(60)], [f"strange {number}" for number in range(45)]
    spaces = {"a": shared, "b": shared, "c": shared, "hostile": strange}
    held = {client: len(names) for client, names in spaces.items()}

    gone = classes.find_excess(spaces, held, Config.from_run_config({"max-classes": 100}))

    assert list(gone) == ["hostile"]
    assert "105 classes, but 'max-classes' allows 100, and of them 45 are of this client alone" in gone["hostile"]


def test_the_vocabulary_of_a_pipeline_is_what_its_backend_takes(tmp_path: Path):
    found = open_vocabulary(SynthesisConfig(diffusion_model=str(tiny_pipelines.save("dit", tmp_path))))

    assert found.names == ("ant", "cat", "house cat", "dog", "eel", "fox")
