"""Baselines of one communication round and of none, on a case whose answer is known; and what they cost."""

import json
from pathlib import Path

import pytest
import torch

from common.models import pretrained
from common.upload import Upload
from fedlmg_server.baselines import (
    averaging,
    compare,
    fedavg,
    feddf,
    feddyn,
    fedprox,
    linear_probe,
    methods,
    weighted_ensemble,
)
from fedlmg_server.baselines.outcome import Cost, DoesNotApply, num_bytes
from fedlmg_server.baselines.virtual_run import Accuracies, VirtualRun, balanced_of
from fedlmg_server.distillation.student import make_student
from fedlmg_server.events import StageFinished
from tests.conftest import make_upload
from tests.manifests import make_training, saying
from tests.server.tiny_federation import NAMES, SETTINGS, trained, two_colors, virtual_run
from tests.server.tiny_results import write_finished


def images_counted(upload: Upload, count: int) -> Upload:
    return saying(upload, training=make_training(num_examples=count))


def test_average_counts_a_client_by_its_images():
    one, three = images_counted(make_upload("a", NAMES), 1), images_counted(make_upload("b", NAMES, seed=1), 3)

    model = averaging.average_uploads(virtual_run([one, three]))

    stem = next(iter(one.arrays))
    torch.testing.assert_close(model.state_dict()[stem], 0.25 * one.arrays[stem] + 0.75 * three.arrays[stem])


def test_average_of_a_classs_row_is_of_the_clients_that_know_it():
    first, second = make_upload("a", ["bright", "dark"]), make_upload("b", ["dark", "grey"], seed=1)

    weight = averaging.average_uploads(virtual_run([first, second])).head.weight

    torch.testing.assert_close(weight[0], first.arrays["head.weight"][0])
    torch.testing.assert_close(weight[1], (first.arrays["head.weight"][1] + second.arrays["head.weight"][0]) / 2)
    torch.testing.assert_close(weight[2], second.arrays["head.weight"][1])


@pytest.mark.parametrize("baseline", [fedavg.one_shot, fedavg.many_rounds, fedprox.many_rounds, feddyn.many_rounds])
def test_averages_do_not_apply_to_unlike_architectures(baseline):
    unlike = [make_upload("a", NAMES), make_upload("b", NAMES, "small_mlp")]

    with pytest.raises(DoesNotApply, match="small_mlp, small_resnet"):
        baseline(virtual_run(unlike))


def cost_in_run(method: str, asked: VirtualRun) -> Cost:
    stages = {"distillation": 5.0, "synthesis": 7.0, "prompts-only": 3.0}
    write_finished(asked.workspace, {method: {"a": 0.5, "b": 0.5}}, stages, num_images=32)
    return methods.measure_method(method, asked).cost


def test_what_methods_of_a_run_cost(uploads, tmp_path: Path):
    uploads = [saying(upload, training=make_training(epochs=20, seconds=4.0)) for upload in uploads]
    sent = sum(upload.num_bytes for upload in uploads)
    returned = 2 * num_bytes(make_student(virtual_run(uploads)))
    pixels = 2 * 64 * 3 * 32 * 32
    expected = {
        "local-own": Cost(0, 20, 0, 0, 8.0, 0.0, 0),
        "local-all": Cost(0, 20, 0, 0, 8.0, 0.0, 0),
        "ensemble": Cost(1, 20, sent, sent, 8.0, 0.0, 0),
        "prompts-only-fine-tuning": Cost(1, 0, 0, returned, 0.0, 8.0, 32),
        "prompts-only-multi-teacher": Cost(1, 20, sent, returned, 8.0, 8.0, 32),
        "fedlmg-fine-tuning": Cost(1, 20, sent, returned, 8.0, 12.0, 32),
        "fedlmg-specific-teacher": Cost(1, 20, sent, returned, 8.0, 12.0, 32),
        "centralised": Cost(1, 0, pixels, returned, 0.0, 5.0, 128),
    }

    found = {method: cost_in_run(method, virtual_run(uploads, tmp_path / method)) for method in expected}

    assert found == expected


def test_own_model_reads_its_own_test_set_alone_and_local_models_read_every_one(uploads):
    wrong = saying(uploads[1], class_names=NAMES[::-1])

    rows, matrix = compare.measure_untrained(virtual_run([uploads[0], wrong]))

    assert rows["local-own"].per_client == {"a": 1.0, "b": 0.0}
    assert rows["local-all"].per_client == {"a": 0.5, "b": 0.5}
    assert [row.balanced_per_client for row in rows.values()] == [row.per_client for row in rows.values()]
    assert matrix == {"a": {"a": 1.0, "b": 1.0}, "b": {"a": 0.0, "b": 0.0}}


def test_in_balanced_accuracies_every_class_counts_alike():
    read = {"a": (torch.tensor([[1.0, 0.0]]).repeat(10, 1), torch.tensor([0] * 9 + [1]))}

    found = Accuracies.of(read)

    assert (found["a"], balanced_of(found), balanced_of(dict(found))) == (0.9, {"a": 0.5}, {})


def test_of_many_test_sets_most_are_read_by_their_own_client_alone(uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedlmg_server.baselines.virtual_run.MOST_SHARED", 1)

    rows, matrix = compare.measure_untrained(virtual_run(uploads))

    assert rows["local-own"].per_client.keys() == {"a", "b"}
    assert [rows[name].per_client.keys() for name in ("local-all", "ensemble")] == [{"a"}, {"a"}]
    assert matrix == {"a": {"a": 1.0}, "b": {"a": 1.0}}


def test_feddf_takes_public_images_of_every_class_where_it_takes_few(uploads):
    asked = virtual_run(uploads)
    count = asked.num_updates * SETTINGS["student-batch-size"]
    by_class = (torch.arange(2 * count) >= count).to(torch.uint8)[:, None, None, None]

    asked.public = by_class
    taken = feddf.public_images(asked)

    assert len(taken) == count
    assert 0.4 < taken.float().mean() < 0.6


def test_feddf_starts_from_the_average_of_nets_like_the_student_s(uploads):
    unlike = [make_upload("a", NAMES, "small_mlp")]

    alike, other = (feddf._make_start(virtual_run(each)).state_dict() for each in (uploads, unlike))

    average, student = averaging.average_uploads(virtual_run(uploads)), make_student(virtual_run(unlike))
    torch.testing.assert_close(dict(alike), dict(average.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(dict(other), dict(student.state_dict()), rtol=0, atol=0)


def test_feddf_learns_from_teachers_and_images_without_labels(uploads):
    asked = virtual_run(uploads)
    asked.public = two_colors(128).images

    outcome = feddf.feddf(asked)

    assert outcome.per_client == {"a": 1.0, "b": 1.0}
    assert outcome.cost.num_images == 128


def test_feddf_asks_for_public_images_where_clients_have_folders(uploads):
    with pytest.raises(DoesNotApply, match="names no `public` images"):
        feddf.feddf(virtual_run(uploads, folders="/a;/b"))


def test_clients_below_chance_have_no_vote(uploads, tmp_path: Path):
    wrong = saying(trained("c"), class_names=NAMES[::-1])
    asked = virtual_run([*uploads, wrong], tmp_path)
    scores = {name: {"quality": quality} for name, quality in (("a", 0.1), ("b", 0.1), ("c", None))}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "quality.json").write_text(json.dumps(scores))
    asked.workspace.log(StageFinished(name="synthesis", seconds=7.0))

    outcome = weighted_ensemble.by_quality(asked)

    assert set(outcome.per_client.values()) == {1.0}
    # It is scored by the images that were generated.
    assert outcome.cost.server_seconds == 7.0


def test_linear_probe_trains_the_last_layer_alone(uploads, monkeypatch: pytest.MonkeyPatch):
    asked, models = virtual_run(uploads), []
    monkeypatch.setattr(VirtualRun, "measure", lambda self, model: models.append(model) or {})

    linear_probe.linear_probe(asked)

    before, after = dict(make_student(asked).named_parameters()), dict(models[0].named_parameters())
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {f"{pretrained.head_name(models[0])}.weight", f"{pretrained.head_name(models[0])}.bias"}
