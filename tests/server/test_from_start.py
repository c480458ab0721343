"""Baselines that begin with the server's general model, and what a warm start costs."""

from pathlib import Path

import pytest
import torch

from common.datasets.labeled_images import LabeledImages, LabeledView
from common.manifest import StudentCopy
from common.upload import Upload, to_wire
from fedlmg_server.baselines import averaging, centralised, compare, fedavg, feddyn, fedprox, methods, rounds, start
from fedlmg_server.baselines.outcome import DoesNotApply, bytes_of_starts, bytes_of_starts_to_personalise
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import mixture
from fedlmg_server.general.images import GeneralImages
from tests.conftest import make_upload
from tests.manifests import make_training, saying
from tests.server.tiny_federation import NAMES, keep_general, trained, two_colors, virtual_run, warm_run
from tests.server.tiny_results import write_finished

MANY_ROUNDS = [fedavg.many_rounds_from_start, fedprox.many_rounds_from_start, feddyn.many_rounds_from_start]
REPLAYED = 8 * 3 * 32 * 32
"""Bytes of the replay images of `warm_run`."""


@pytest.fixture(scope="module")
def general() -> Upload:
    """Its model takes bright for dark: its classes are in the run's order, its images' labels are not."""
    return trained("general", seed=2)


def with_copy(client: str, weights: Upload, images: int, began_as: str = "general") -> Upload:
    """A client with a net of its own, which also sends a copy of the student's architecture."""
    upload = saying(make_upload(client, sorted(NAMES), "small_mlp"), training=make_training(num_examples=images))
    said = StudentCopy(
        architecture="small_resnet",
        class_names=["bright", "dark"],
        sha256="",
        start=began_as,
        validation_accuracy=None,
        seconds=3.0,
    )
    return upload.with_student_copy(weights.arrays, said)


def in_half_precision(upload: Upload) -> dict[str, torch.Tensor]:
    """Its weights, rounded as general models are kept."""
    return {name: to_wire(value).to(value.dtype) for name, value in upload.arrays.items()}


def wire_bytes(upload: Upload) -> int:
    """Of its weights in float16."""
    return sum(value.numel() * (2 if value.is_floating_point() else 8) for value in upload.arrays.values())


def test_general_model_is_measured_by_its_own_class_names(uploads, general, tmp_path: Path):
    run = warm_run(uploads, tmp_path, general)

    assert start.measure_general(run) == {"a": 0.0, "b": 0.0}
    keep_general(run, general, NAMES)
    assert start.measure_general(run) == {"a": 1.0, "b": 1.0}


def test_there_is_no_general_row_without_a_warm_start(uploads, tmp_path: Path):
    cold = virtual_run(uploads, tmp_path)

    assert compare.measure_general(cold) == {}
    with pytest.raises(DoesNotApply, match="set 'warm-start'"):
        start.general_model(cold)


@pytest.mark.parametrize("baseline", MANY_ROUNDS)
def test_rounds_begin_with_the_general_model(baseline, uploads, general, tmp_path, monkeypatch: pytest.MonkeyPatch):
    began = []
    monkeypatch.setattr(rounds, "train_and_measure", lambda run, strategy, model: began.append(model.state_dict()))

    baseline(warm_run(uploads, tmp_path, general))

    torch.testing.assert_close(dict(began[0]), in_half_precision(general), rtol=0, atol=0)


def test_clients_of_unlike_nets_train_the_student_s_in_rounds_from_a_start(uploads, general, tmp_path: Path):
    unlike = [uploads[0], make_upload("b", NAMES, "small_mlp")]

    model = start.general_model(warm_run(unlike, tmp_path, general))

    torch.testing.assert_close(dict(model.state_dict()), in_half_precision(general), rtol=0, atol=0)


def test_one_shot_average_from_a_start_is_of_copies_weighted_by_images(tmp_path: Path):
    one, three = make_upload("x", NAMES), make_upload("y", NAMES, seed=1)
    run = virtual_run([with_copy("a", one, 1), with_copy("b", three, 3)], tmp_path)

    found = averaging.average_copies(run).network.state_dict()

    stem = next(iter(one.arrays))
    torch.testing.assert_close(found[stem], 0.25 * one.arrays[stem] + 0.75 * three.arrays[stem])


def test_one_shot_average_from_a_start_leaves_out_who_began_from_scratch(general, tmp_path: Path):
    scratch = make_upload("scratch", sorted(NAMES))
    run = virtual_run([scratch, with_copy("a", general, 1), with_copy("b", general, 1)], tmp_path)

    found = averaging.average_copies(run).network.state_dict()

    torch.testing.assert_close(dict(found), general.arrays)


@pytest.mark.parametrize(
    ("starts", "reason"), [(("general", ""), "fewer than two clients"), (("general", "other"), "different general")]
)
def test_one_shot_average_from_a_start_needs_one_start(starts, reason: str, general, tmp_path: Path):
    uploads = [with_copy(client, general, 1, began_as) for client, began_as in zip("ab", starts, strict=True)]

    with pytest.raises(DoesNotApply, match=reason):
        fedavg.one_shot_from_start(virtual_run(uploads, tmp_path))


def test_what_a_warm_start_sends_is_counted(general, tmp_path: Path):
    uploads = [with_copy("a", general, 1), saying(make_upload("b", sorted(NAMES)), start="general")]
    run = warm_run(uploads, tmp_path, general)

    # There is no general model of the first client's own architecture: it gets the student's, and the second its own.
    assert bytes_of_starts(run) == 2 * (wire_bytes(general) + REPLAYED)
    assert bytes_of_starts_to_personalise(run) == 2 * (wire_bytes(general) + REPLAYED)


def test_copies_cost_their_clients_seconds(general, tmp_path: Path):
    run = virtual_run([with_copy("a", general, 1), with_copy("b", general, 1)], tmp_path)

    assert methods.cost_of_uploads(run).client_seconds == 6.0


def test_personal_models_cost_the_whole_round(uploads, general, tmp_path: Path):
    run = warm_run(uploads, tmp_path, general)
    stages = {"distillation": 5.0, "synthesis": 7.0}
    write_finished(run.workspace, {"personal": {"a": 1.0}, "fedlmg-fine-tuning": {"a": 1.0}}, stages, num_images=32)

    personal, returned = (methods.measure_method(name, run).cost for name in ("personal", "fedlmg-fine-tuning"))

    assert personal.download_bytes - returned.download_bytes == bytes_of_starts_to_personalise(run)
    assert (personal.upload_bytes, personal.server_seconds) == (returned.upload_bytes, 12.0)


def test_a_merge_is_measured_where_it_is_returned(uploads, general, tmp_path: Path):
    run = warm_run(uploads, tmp_path, general, aggregation="specific-teacher")
    write_finished(run.workspace, {}, {})

    with pytest.raises(DoesNotApply, match="set 'aggregation' to 'merge'"):
        methods.measure_method("fedlmg-merge", run)


def test_what_no_client_kept_does_not_apply(uploads, general, tmp_path: Path):
    run = warm_run(uploads, tmp_path, general)
    write_finished(run.workspace, {}, {})

    with pytest.raises(DoesNotApply, match="no client told such a model"):
        methods.measure_method("personal", run)


@pytest.mark.parametrize("count", [40, 400])
def test_half_of_the_upper_bound_s_images_are_real(count: int, uploads, tmp_path, monkeypatch: pytest.MonkeyPatch):
    run = virtual_run(uploads, tmp_path, warm_start=True)
    plain = LabeledImages(torch.full((count, 3, 32, 32), 7, dtype=torch.uint8), torch.arange(count) % 2)
    made = GeneralImages(LabeledView.of(plain), LabeledView.of(plain), "public")
    monkeypatch.setattr(mixture, "load_general_images", lambda run: made)

    mixed = centralised.pool_with_general(run)

    general = (mixed.images.read() == 7).flatten(1).all(1)
    assert general.double().mean() == 0.5
    assert len(mixed.images) == 2 * max(count, 2 * len(two_colors()))
    assert torch.equal(mixed.labels[general][:count], plain.labels)


@pytest.mark.parametrize(("warm", "there"), [(True, True), (False, False)])
def test_the_compared_report_has_the_bound_with_general_images_after_a_warm_start(
    warm: bool, there: bool, uploads: list[Upload]
):
    run: VirtualRun = virtual_run(uploads, warm_start=warm)

    assert ("centralised-with-general" in compare.trained_methods(run)) == there
