"""DENSE and Co-Boosting: the ensemble, the generator, the student, and each method's own loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedlmg_server.baselines import (
    co_boosting,
    data_free,
    dense,
)
from fedlmg_server.distillation.student import make_student
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server.tiny_federation import NAMES, shown, virtual_run


def test_ensemble_reads_each_class_as_the_clients_that_know_it():
    first, second = make_upload("a", ["bright", "dark"]), make_upload("b", ["dark", "grey"], seed=1)
    images = torch.rand(5, 3, 32, 32)

    logits = data_free.Ensemble(virtual_run([first, second])).logits(images)

    with torch.no_grad():
        a, b = (upload.classifier()(upload.preprocess(images)) for upload in (first, second))
    torch.testing.assert_close(logits, torch.stack([a[:, 0], (a[:, 1] + b[:, 0]) / 2, b[:, 1]], 1))


def test_generated_images_come_to_look_as_asked(uploads, monkeypatch: pytest.MonkeyPatch):
    for name, size in (("BATCH_SIZE", 8), ("WIDTH", 16), ("GENERATOR_STEPS", 20)):
        monkeypatch.setattr(data_free, name, size)
    asked = virtual_run(uploads)
    ensemble, generator = data_free.Ensemble(asked), torch.Generator().manual_seed(0)

    def loss(labels, logits, distance, student_logits):
        return F.cross_entropy(logits, labels)

    images, labels = data_free.generate(asked, ensemble, make_student(asked), loss, generator)

    assert (ensemble.logits(images).argmax(1) == labels).float().mean() > 0.9
    assert 0 <= images.min() <= images.max() <= 1


def test_dense_pushes_apart_only_where_ensemble_and_student_disagree():
    logits, labels = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
    agrees, disagrees = logits / 2, -logits

    losses = [dense.generator_loss(labels, logits, torch.tensor(0.5), student) for student in (agrees, disagrees)]

    plain = F.cross_entropy(logits, labels) + 0.5
    apart = data_free.divergence(logits, disagrees).mean()
    torch.testing.assert_close(torch.stack(losses), torch.stack([plain, plain - 0.5 * apart]))


def test_hard_images_count_by_how_unsure_the_ensemble_is():
    logits, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([0])

    loss = co_boosting.generator_loss(labels, logits, torch.tensor(9.0), logits)

    assert loss.item() == pytest.approx(0.5 * np.log(2))


def test_a_client_that_reads_images_wrongly_loses_weight(uploads):
    wrong = saying(uploads[0], client="c", class_names=NAMES[::-1])
    asked = virtual_run([*uploads, wrong])
    ensemble, data = data_free.Ensemble(asked), shown()

    co_boosting.reweight(ensemble, data.images.float() / 255, data.labels, step=0.1)

    torch.testing.assert_close(ensemble.weights[2], torch.tensor(1 / 3 - 0.1))


def test_pushed_images_move_by_eight_grey_levels_at_most(uploads):
    ensemble = data_free.Ensemble(virtual_run(uploads))
    images = torch.full((2, 3, 32, 32), 0.5)

    moved = co_boosting.push(ensemble, images, torch.Generator().manual_seed(0)) - images

    assert moved.abs().max().item() == pytest.approx(8 / 255, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", [dense.dense, co_boosting.co_boosting])
def test_data_free_students_take_everyones_updates_and_do_not_guess(baseline, uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_free, "NUM_EPOCHS", 3)
    monkeypatch.setattr(data_free, "BATCH_SIZE", 16)

    outcome = baseline(virtual_run(uploads))

    assert min(outcome.per_client.values()) > 0.8
    assert outcome.cost.num_images == 48
    assert outcome.cost.rounds == 1
