"""The merged model of a run: who is a member, who is stood in for, and what the model's description says."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from common.config import ConfigError
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.manifest import StudentCopy
from common.names import is_sane_name
from common.upload import Upload, to_wire, weights_digest
from fedlmg_server.distillation import aggregate, merged_student, mixture
from fedlmg_server.distillation.aggregate import distil
from fedlmg_server.distillation.merged_student import GUIDED, Start, find_members
from fedlmg_server.distillation.saved_model import save_model
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.events import Note
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.run import Run
from tests.conftest import make_upload
from tests.server.tiny_federation import NAMES, trained, two_colors, warm_run

NAMES_IN_ORDER = sorted(NAMES)
"""bright, dark: as the run's classes are."""


def in_order(data: LabeledImages) -> LabeledImages:
    return LabeledImages(data.images, 1 - data.labels)


@pytest.fixture(autouse=True)
def general(monkeypatch: pytest.MonkeyPatch) -> None:
    found = GeneralImages(LabeledView.of(in_order(two_colors())), LabeledView.of(in_order(two_colors(32))), "public")
    for module in (mixture, merged_student):
        monkeypatch.setattr(module, "load_general_images", lambda run: found)


def started(client: str, general: Upload, change: float = 0.0) -> Upload:
    """A client whose classifier is the general model, moved a little, with the run's classes."""
    arrays = {name: each + change if name == "head.bias" else each for name, each in general.arrays.items()}
    manifest = general.manifest.model_copy(
        update={"client": client, "start": digest_on_the_wire(general), "sha256": weights_digest(arrays)}
    )
    return replace(general, arrays=arrays, manifest=manifest)


def digest_on_the_wire(general: Upload) -> str:
    return weights_digest({name: to_wire(each) for name, each in general.arrays.items()})


def make_run(folder: Path, uploads: list[Upload], general: Upload) -> Run:
    return warm_run(uploads, folder, general, aggregation="merge", student_epochs=2)


@cache
def make_general() -> Upload:
    """A model that reads bright as class 0, as the run's order has it."""
    upload = trained("general")
    head = {name: each.flip(0) for name, each in upload.arrays.items() if name.startswith("head")}
    manifest = upload.manifest.model_copy(update={"class_names": NAMES_IN_ORDER})
    return replace(upload, arrays=upload.arrays | head, manifest=manifest)


def synthetic_images(clients: list[str]) -> SyntheticSet:
    data = in_order(two_colors(8 * len(clients)))
    owners = [client for client in clients for _ in range(8)]
    return SyntheticSet(data.images, data.labels, owners, NAMES_IN_ORDER)


def test_classifiers_that_shared_the_start_are_members(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [started("a", general, 0.1), started("b", general, -0.1)], general)

    members = find_members(run, Start.of_run(run), {"a": 1.0, "b": 0.5})

    assert [(member.client, member.weight) for member in members] == [("a", 1.0), ("b", 0.5)]


def test_copy_in_an_upload_of_another_architecture_is_a_member(tmp_path: Path):
    general = make_general()
    own = make_upload("a", NAMES_IN_ORDER, "small_mlp")
    said = StudentCopy(
        architecture="small_resnet",
        class_names=NAMES_IN_ORDER,
        sha256="",
        start=digest_on_the_wire(general),
        validation_accuracy=1.0,
    )
    upload = replace(own, student_copy=general.arrays, manifest=own.manifest.model_copy(update={"student_copy": said}))
    run = make_run(tmp_path, [upload, started("b", general)], general)

    members = find_members(run, Start.of_run(run), {"a": 1.0, "b": 1.0})

    assert [member.client for member in members] == ["a", "b"]


def test_classifier_of_another_start_is_no_member(tmp_path: Path):
    general = make_general()
    stranger = started("a", general)
    stranger = replace(stranger, manifest=stranger.manifest.model_copy(update={"start": "0" * 64}))
    run = make_run(tmp_path, [stranger, started("b", general)], general)

    assert [member.client for member in find_members(run, Start.of_run(run), {"a": 1.0, "b": 1.0})] == ["b"]


def test_client_that_cannot_be_trusted_is_no_member(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [started("a", general), started("b", general)], general)

    assert [member.client for member in find_members(run, Start.of_run(run), {"a": 0.0, "b": 1.0})] == ["b"]


def test_merge_of_copies_needs_no_student(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [started("a", general, 0.1), started("b", general, 0.3)], general)

    distilled = distil(run, synthetic_images(["a", "b"]))

    merged = distilled.merged
    assert merged is not None
    assert not distilled.history
    change = distilled.model.state_dict()["head.bias"] - general.arrays["head.bias"]
    assert torch.allclose(change, torch.full_like(change, 0.2 * merged.scale), atol=1e-2)


def test_guided_student_stands_for_a_client_that_sent_nothing_to_merge(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [started("a", general), make_upload("b", NAMES_IN_ORDER, "small_mlp")], general)
    run.config = replace(run.config, distillation=replace(run.config.distillation, teacher_weighting="uniform"))
    found = []
    real = merged_student.merge_members
    aggregate.merged_student.merge_members = lambda run, start, members: (
        found.extend(members) or real(run, start, members)
    )
    try:
        distilled = distil(run, synthetic_images(["a", "b"]))
    finally:
        aggregate.merged_student.merge_members = real

    assert [(member.client, member.weight) for member in found] == [("a", 1.0), (GUIDED, 1.0)]
    assert distilled.history


def test_guided_student_is_the_model_where_nobody_sent_anything_to_merge(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [make_upload("a", NAMES_IN_ORDER, "small_mlp")], general)
    run.config = replace(run.config, distillation=replace(run.config.distillation, teacher_weighting="uniform"))

    distilled = distil(run, synthetic_images(["a"]))

    assert distilled.merged is None
    assert distilled.history


def test_where_no_client_s_classifier_can_be_merged_the_general_model_goes_back_and_the_run_says_so(tmp_path: Path):
    general = make_general()
    ruined = started("a", general)
    ruined.arrays["head.bias"] = torch.tensor([1000.0, 0.0])
    run = make_run(tmp_path, [ruined], general)
    run.config = replace(run.config, distillation=replace(run.config.distillation, teacher_weighting="uniform"))

    distilled = distil(run, synthetic_images(["a"]))

    returned = distilled.model.state_dict()
    assert all(torch.equal(returned[name], each) for name, each in Start.of_run(run).state.items())
    (note,) = (event.text for event in run.workspace.read_events() if isinstance(event, Note))
    assert note.startswith("no client's classifier can be merged (a: on general images it is 0.00 above chance")
    assert note.endswith("the model that goes back is the general one")


def test_description_of_the_model_says_how_it_was_merged(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [started("a", general, 0.1), started("b", general)], general)

    save_model(run, distil(run, synthetic_images(["a", "b"])))

    said = json.loads((tmp_path / "model" / "making.json").read_text())["merge"]
    assert said["left_out"] == {}
    assert said["scale"] > 0
    assert said["accuracies"]["0.0"] == 1.0


def test_merge_without_a_warm_start_says_what_to_set(tmp_path: Path):
    general = make_general()
    run = make_run(tmp_path, [started("a", general)], general)
    (tmp_path / "general" / "small_resnet.safetensors").unlink()

    with pytest.raises(ConfigError, match="set 'warm-start=true', or another 'aggregation'"):
        Start.of_run(run)


def test_no_client_is_called_as_the_guided_student_is():
    assert not is_sane_name(GUIDED)


def test_merge_without_held_out_general_images_is_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There every class has one public image: nothing says how much more than the average could be added."""
    general = make_general()
    run = make_run(tmp_path, [started("a", general, 0.1), started("b", general, 0.3)], general)
    one_of_each = LabeledView.of(in_order(two_colors(2)))
    nothing_held_out = GeneralImages(one_of_each, one_of_each.choose(torch.tensor([], dtype=torch.int64)), "public")
    monkeypatch.setattr(merged_student, "load_general_images", lambda run: nothing_held_out)
    start = Start.of_run(run)

    _, merged = merged_student.merge_members(run, start, find_members(run, start, {"a": 1.0, "b": 1.0}))

    assert (merged.scale, merged.accuracies) == (1.0, {})


def test_merge_is_the_average_where_the_diffusion_model_drew_the_general_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    general = make_general()
    run = make_run(tmp_path, [started("a", general, 0.1), started("b", general, 0.3)], general)
    drawn = GeneralImages(LabeledView.of(in_order(two_colors())), LabeledView.of(in_order(two_colors(32))), "unguided")
    monkeypatch.setattr(merged_student, "load_general_images", lambda run: drawn)
    start = Start.of_run(run)

    _, merged = merged_student.merge_members(run, start, find_members(run, start, {"a": 1.0, "b": 1.0}))

    assert (merged.scale, list(merged.accuracies)) == (1.0, [0.0, 1.0])
