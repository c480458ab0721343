"""What clients teach the student, and what the loss makes of it."""

import torch

from common import labels
from common.labels import maps
from fedlmg_server import trainer
from fedlmg_server.distillation import teachers
from fedlmg_server.distillation.aggregate import TeacherCache
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from tests.conftest import make_upload
from tests.server.tiny_distillation import CONFIG, make_run


def test_teacher_equal_to_the_student_adds_nothing_to_the_loss():
    logits, targets, config = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), CONFIG
    teacher = trainer.soften(logits.softmax(1), config.temperature)

    with_teacher = trainer.distillation_loss(logits, targets, teacher, config)

    torch.testing.assert_close(with_teacher, torch.nn.functional.cross_entropy(logits, targets))


def test_multi_teacher_averages_only_over_clients_that_know_a_class():
    per_client = {"a": torch.tensor([[0.6, 0.4, 0.0]]), "b": torch.tensor([[0.0, 0.2, 0.8]])}
    known = {"a": torch.tensor([True, True, False]), "b": torch.tensor([False, True, True])}

    mean = teachers.multi_teacher(per_client, known)

    unnormalised = torch.tensor([[0.6, 0.3, 0.8]])
    torch.testing.assert_close(mean, unnormalised / unnormalised.sum())


def test_multi_teacher_weighs_votes():
    per_client = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[0.0, 1.0]])}
    known = dict.fromkeys("ab", torch.tensor([True, True]))

    mean = teachers.multi_teacher(per_client, known, {"a": 1.0, "b": 0.25})

    torch.testing.assert_close(mean, torch.tensor([[0.8, 0.2]]))


def test_images_of_a_client_without_weight_are_left_out():
    uploads = [make_upload("a", ["0", "1"]), make_upload("b", ["1", "2"])]
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    synthetic = SyntheticSet(images, torch.tensor([0, 1, 2]), ["a", "b", "b"], ["0", "1", "2"])

    data = TeacherCache(make_run(CONFIG, uploads), synthetic).training_set("specific-teacher", {"a": 0.0, "b": 1.0})

    assert data.labels.tolist() == [1, 2]
    assert len(data.images) == 2
    assert data.teacher[:, 0].tolist() == [0.0, 0.0]


def test_specific_teacher_is_the_client_an_image_was_drawn_for():
    uploads = [make_upload("a", ["0", "1"]), make_upload("b", ["1", "2"])]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    run, synthetic = make_run(CONFIG, uploads), SyntheticSet(images, torch.tensor([2, 0]), ["b", "a"], ["0", "1", "2"])

    data = TeacherCache(run, synthetic).training_set("specific-teacher", {"a": 1.0, "b": 1.0})

    of_each = teachers.predict_with_all(run, images)
    assert torch.equal(data.teacher, torch.stack([of_each["b"][0], of_each["a"][1]]))


def test_of_an_image_only_clients_that_know_its_class_speak_in_turn():
    uploads = [make_upload("a", ["0", "1"]), make_upload("b", ["1", "2"], seed=1), make_upload("c", ["0", "2"], seed=2)]
    labels, weights = torch.arange(300) % 3, {"a": 1.0, "b": 0.3, "c": 0.7}
    run, images = make_run(CONFIG, uploads), torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)

    in_turn = teachers.multi_teacher_in_parts(run, images, labels, weights, torch.float32)

    of_each, known = teachers.predict_with_all(run, images), run.known_classes
    for label in range(3):
        speaking = {client: of_each[client] for client in of_each if known[client][label]}
        assert torch.equal(in_turn[labels == label], teachers.multi_teacher(speaking, known, weights)[labels == label])


def test_probabilities_are_spread_by_class_name():
    spread = maps.spread_probabilities(torch.tensor([[0.25, 0.75]]), ["dog", "ant"], ["ant", "bee", "dog"])

    assert spread.tolist() == [[0.75, 0.0, 0.25]]


def test_union_of_label_spaces_orders_numbers_by_value():
    assert labels.union_of_names([["10", "9"], ["9", "2"]]) == ["2", "9", "10"]
