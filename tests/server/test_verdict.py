"""The witness's two tests and what confirms them, on log-probabilities that are made up."""

import pytest
import torch

from fedlmg_server.witness.verdict import Verdict, confirm, join, judge_reading, judge_shift

FOUR = ["a", "b", "c", "d"]
LABELS = torch.arange(80) % 4
OFTEN_WRONG = LABELS.where(torch.arange(80) % 8 > 3, 0)
"""Five eighths are right."""


def sure_of(labels: torch.Tensor, nats: float = 4.0) -> torch.Tensor:
    """Log-probabilities (N, 4) that prefer these classes by so many nats."""
    return (nats * torch.eye(4)[labels]).log_softmax(1)


ACCUSED = Verdict("mislabelled", {"a": "c", "c": "a"}, 0.5)


def exchange(first: int, second: int) -> torch.Tensor:
    """`LABELS` with two classes exchanged."""
    order = list(range(4))
    order[first], order[second] = second, first
    return torch.tensor(order)[LABELS]


def test_a_classifier_that_moved_from_one_class_to_another_and_back_is_mislabelled():
    verdict = judge_shift(sure_of(LABELS), sure_of(exchange(1, 3)), LABELS, FOUR)

    assert verdict == Verdict("mislabelled", {"b": "d", "d": "b"}, 0.5)
    assert verdict.sentence() == "its 'b' looks like 'd', its 'd' looks like 'b'"


def test_a_shift_is_found_even_where_replay_keeps_most_answers_right():
    answers = LABELS.where(torch.arange(80) % 16 > 3, exchange(1, 3))
    leaning = (sure_of(answers) + 0.9 * sure_of(exchange(1, 3))).log_softmax(1)

    verdict = judge_shift(sure_of(LABELS), leaning, LABELS, FOUR)

    assert verdict.mistaken == {"b": "d", "d": "b"}
    assert verdict.read == 0.875


def test_a_classifier_that_is_less_sure_of_two_classes_and_errs_no_more_is_not_accused():
    leaning = (sure_of(LABELS) + 0.9 * sure_of(exchange(1, 3))).log_softmax(1)

    assert judge_shift(sure_of(LABELS), leaning, LABELS, FOUR) == Verdict("unknown", read=1.0)


@pytest.mark.parametrize("others", [0, 1], ids=["one class alone", "one class, and once on the other"])
def test_a_classifier_that_errs_on_one_class_is_not_accused(others: int):
    """It calls a quarter of one class by another's name, and leans a little to the first where it sees the other."""
    number = torch.arange(80) // 4
    answers = LABELS.where((LABELS != 1) | (number > 4), 3)
    answers = answers.where((LABELS != 3) | (number >= others), 1)
    leaning = (sure_of(answers) + 0.9 * sure_of(exchange(1, 3))).log_softmax(1)

    assert judge_shift(sure_of(LABELS), leaning, LABELS, FOUR).state == "unknown"


def test_two_pairs_of_which_each_errs_in_one_direction_are_not_accused():
    """A quarter of the images of either first class is called by another name, and none of the other by its name."""
    number = torch.arange(80) // 4
    answers = LABELS.where((number > 4) | (LABELS > 1), LABELS + 2)
    leaning = (sure_of(answers) + 0.9 * sure_of((LABELS + 2) % 4)).log_softmax(1)

    assert judge_shift(sure_of(LABELS), leaning, LABELS, FOUR).state == "unknown"


def exchanged_on(images: dict[int, int], order: torch.Tensor, labels: torch.Tensor = LABELS) -> torch.Tensor:
    """Log-probabilities that lean to `order`; the first images of each class, as many as told, are called by it."""
    number = torch.arange(len(labels)) // 4
    called = torch.tensor([images.get(int(label), 0) for label in labels]) > number
    return (sure_of(labels.where(~called, order)) + 0.9 * sure_of(order)).log_softmax(1)


@pytest.mark.parametrize(("images", "state"), [({1: 2, 3: 2}, "mislabelled"), ({1: 1, 3: 1}, "unknown")])
def test_one_image_of_ten_in_each_of_two_classes_does_not_accuse(images: dict[int, int], state: str):
    labels = LABELS[:40]

    verdict = judge_shift(sure_of(labels), exchanged_on(images, exchange(1, 3)[:40], labels), labels, FOUR)

    assert verdict.state == state


def test_a_circle_of_four_in_which_hardly_an_answer_changes_is_not_accused():
    leaning = exchanged_on({0: 2, 1: 2}, (LABELS + 1) % 4)

    assert judge_shift(sure_of(LABELS), leaning, LABELS, FOUR).state == "unknown"


def test_of_two_pairs_only_the_one_whose_answers_change_is_named():
    order = torch.tensor([2, 3, 0, 1])[LABELS]

    verdict = judge_shift(sure_of(LABELS), exchanged_on({1: 5, 3: 5}, order), LABELS, FOUR)

    assert verdict.mistaken == {"b": "d", "d": "b"}


def test_a_rotation_names_each_class_by_what_its_images_look_like():
    rotated = (LABELS + 1) % 4

    verdict = judge_shift(sure_of(LABELS), sure_of(rotated), LABELS, FOUR)

    assert verdict.mistaken == {"b": "a", "c": "b", "d": "c", "a": "d"}


def test_a_classifier_that_is_less_sure_than_it_was_is_consistent():
    assert judge_shift(sure_of(LABELS), sure_of(LABELS, nats=3.0), LABELS, FOUR).state == "consistent"


def test_a_class_that_is_forgotten_for_another_is_no_sign_of_wrong_labels():
    forgotten = sure_of(LABELS.where(LABELS != 1, 3))

    assert judge_shift(sure_of(LABELS), forgotten, LABELS, FOUR).state == "consistent"


@pytest.mark.parametrize(
    ("before", "after", "labels", "names"),
    [
        pytest.param(torch.zeros(80, 4), sure_of(LABELS), LABELS, FOUR, id="a general model that knows nothing"),
        pytest.param(sure_of(OFTEN_WRONG), sure_of(exchange(1, 3)), LABELS, FOUR, id="a general model often wrong"),
        pytest.param(sure_of(LABELS), sure_of(LABELS * 0), LABELS, FOUR, id="a classifier that has forgotten all"),
        pytest.param(sure_of(LABELS), sure_of(LABELS), LABELS % 3, FOUR, id="a class without images"),
        pytest.param(torch.zeros(9, 1), torch.zeros(9, 1), torch.zeros(9).long(), ["a"], id="one class"),
    ],
)
def test_what_cannot_be_compared_is_unknown(before, after, labels, names):
    assert judge_shift(before, after, labels, names).state == "unknown"


def test_a_classifier_that_reads_two_classes_as_each_other_is_mislabelled():
    assert judge_reading(sure_of(exchange(0, 2)), LABELS, FOUR).mistaken == {"a": "c", "c": "a"}


def test_an_accusation_stands_if_images_of_any_look_are_called_as_taught():
    assert confirm(ACCUSED, sure_of(exchange(0, 2)), LABELS, FOUR) is ACCUSED


@pytest.mark.parametrize("read", [LABELS, torch.ones(80).long()], ids=["as shown", "all one class"])
def test_an_accusation_falls_if_images_of_any_look_are_read_otherwise(read: torch.Tensor):
    assert confirm(ACCUSED, sure_of(read), LABELS, FOUR) == Verdict("unknown", read=0.5)


def test_a_classifier_that_reads_what_is_shown_is_consistent():
    assert judge_reading(sure_of(LABELS), LABELS, FOUR).state == "consistent"


def test_a_classifier_that_reads_a_few_images_more_as_another_class_is_not_accused():
    """Of eight images each: as an honest net from scratch read cells of four classes."""
    read = [[1, 1, 6, 0], [2, 5, 0, 1], [0, 0, 8, 0], [1, 7, 0, 0]]
    said = torch.tensor([label for row in read for label, count in enumerate(row) for _ in range(count)])

    assert judge_reading(sure_of(said), torch.arange(4).repeat_interleave(8), FOUR).state == "unknown"


def test_a_classifier_that_guesses_is_unknown_and_never_accused():
    guesses = sure_of(torch.randint(0, 4, (80,), generator=torch.Generator().manual_seed(0)))

    assert judge_reading(guesses, LABELS, FOUR).state == "unknown"


def test_a_favourite_class_is_no_sign_of_wrong_labels():
    leaning = (sure_of(LABELS) + torch.tensor([3.0, 0, 0, 0])).log_softmax(1)

    assert judge_reading(leaning, LABELS, FOUR).state != "mislabelled"


def test_one_mislabelled_classifier_is_enough_to_accuse_a_client():
    accused = Verdict("mislabelled", {"a": "b"})

    assert join([Verdict("consistent"), accused, Verdict("unknown")]) == accused


def test_a_client_is_consistent_only_if_every_classifier_is():
    consistent, unknown = Verdict("consistent"), Verdict("unknown")

    assert [join(each).state for each in ([consistent, consistent], [consistent, unknown], [])] == [
        "consistent",
        "unknown",
        "unknown",
    ]
