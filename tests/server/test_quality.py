"""A client near chance by every measure is left out; one that is good by any is not."""

from collections import Counter

import pytest
import torch

from common.upload import Upload
from common.vision.metrics import above_chance
from fedlmg_server.distillation import quality
from fedlmg_server.distillation.quality import MOST_READ, choose_readings, score_teachers
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.witness.judge import Finding
from fedlmg_server.witness.verdict import UNKNOWN
from tests.conftest import make_upload
from tests.manifests import make_training, saying

CLASSES = list("0123")
LABELS = torch.arange(120) % 4
CLIENTS = [name for name in "abc" for _ in range(40)]


def upload(name: str, validation: float | None, classes: list[str] = CLASSES) -> Upload:
    return saying(make_upload(name, classes), training=make_training(validation_accuracy=validation))


def reading(share_right: dict[str, float]) -> torch.Tensor:
    """Guesses that are right on that share of each client's images, else one class off."""
    return torch.tensor(
        [
            label if row % 40 < 40 * share_right[client] else (label + 1) % 4
            for row, (client, label) in enumerate(zip(CLIENTS, LABELS.tolist(), strict=True))
        ]
    )


def scores(
    readings: dict[str, dict],
    validations: dict[str, float | None],
    weighting: str = "quality",
    witnessed: dict[str, Finding] | None = None,
) -> dict:
    images = torch.zeros(len(LABELS), 3, 1, 1, dtype=torch.uint8)
    synthetic = SyntheticSet(images, LABELS, CLIENTS, CLASSES)
    uploads = [upload(name, validation) for name, validation in validations.items()]
    guesses = {name: reading(right) for name, right in readings.items()}
    return score_teachers(uploads, synthetic, guesses, weighting, witnessed)


POISONED = {
    "a": {"a": 0.9, "b": 0.95, "c": 0.2},
    "b": {"a": 0.95, "b": 0.9, "c": 0.2},
    "c": {"a": 0.2, "b": 0.3, "c": 0.9},
}


def test_client_trained_on_random_labels_is_left_out_with_a_reason():
    scored = scores(POISONED, {"a": 0.8, "b": 0.8, "c": 0.3})

    assert [scored[name].weight for name in "abc"] == [1.0, 1.0, 0.0]
    assert "near chance by every measure" in scored["c"].reason


def test_honest_client_of_a_domain_that_nobody_else_reads_has_half_a_vote_by_its_word():
    scored = scores(POISONED, {"a": 0.8, "b": 0.8, "c": 0.9})

    assert scored["c"].weight == 0.5


@pytest.mark.parametrize("measured", ["reads_general", "reads_styled"])
def test_a_client_that_the_server_saw_reading_needs_no_word(measured: str):
    heard = {"c": Finding(UNKNOWN, **{measured: 0.4})}

    scored = scores(POISONED, {"a": 0.8, "b": 0.8, "c": 0.25}, witnessed=heard)

    assert scored["c"].weight == 1.0


def test_a_lie_about_validation_gets_no_more_than_the_least_word_that_counts():
    told = {word: scores(POISONED, {"a": 0.8, "b": 0.8, "c": word})["c"].weight for word in (0.4, 1.0)}

    assert told[0.4] == told[1.0] == 0.5


def test_client_without_validation_images_is_judged_by_the_others():
    scored = scores(POISONED, {"a": None, "b": None, "c": None})

    assert [scored[name].weight for name in "abc"] == [1.0, 1.0, 0.0]


def test_images_that_others_can_read_do_not_save_a_client_that_reports_chance():
    readable = POISONED | {name: POISONED[name] | {"c": 0.9} for name in "ab"}

    scored = scores(readable, {"a": 0.8, "b": 0.8, "c": 0.25})

    assert scored["c"].read_by_others > 0.5
    assert scored["c"].weight == 0.0


def test_a_few_lucky_images_prove_nothing():
    assert above_chance(0.24, 10, num_images=25) < 0.05 < above_chance(0.24, 10, num_images=1000)


def test_weak_client_has_a_small_vote():
    heard = {"c": Finding(UNKNOWN, reads_styled=0.2)}

    scored = scores(POISONED, {"a": 0.8, "b": 0.8, "c": 0.25}, witnessed=heard)

    assert scored["c"].weight == pytest.approx(0.2 / 0.3)


@pytest.mark.parametrize(
    ("weighting", "validation"), [("uniform", 0.9), ("quality", 0.2)], ids=["uniform", "nobody is above chance"]
)
def test_everyone_keeps_full_weight(weighting: str, validation: float):
    chance = {name: dict.fromkeys("abc", 0.25) for name in "abc"}

    scored = scores(chance, dict.fromkeys("abc", validation), weighting)

    assert {score.weight for score in scored.values()} == {1.0}


def test_client_with_no_class_in_common_falls_back_to_its_validation():
    images = torch.zeros(len(LABELS), 3, 1, 1, dtype=torch.uint8)
    synthetic = SyntheticSet(images, LABELS, ["a"] * len(LABELS), [*CLASSES, "8", "9"])
    uploads = [upload("a", 0.9), upload("b", 0.8, ["8", "9"])]
    readings = {name: LABELS for name in "ab"}

    scored = score_teachers(uploads, synthetic, readings, "quality")

    assert (scored["b"].reads_others, scored["b"].quality, scored["b"].weight) == (None, 0.15, 0.5)


def test_each_of_many_clients_reads_and_is_read_by_a_bounded_number():
    clients = [str(number) for number in range(3 * MOST_READ)]

    chosen = choose_readings(clients, torch.arange(len(clients)), seed=0)

    read_by = Counter(image for images in chosen.values() for image in images.tolist())
    assert {len(images) for images in chosen.values()} == {MOST_READ + 1}
    assert set(read_by.values()) == {MOST_READ + 1}
    assert all(number in images for number, images in enumerate(chosen[client] for client in clients))


def test_client_reads_all_of_its_own_images_and_the_first_of_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality, "MOST_OF_ONE", 2)

    chosen = choose_readings(["a", "b"], torch.tensor([0, 0, 0, 1, 1, 1]), seed=0)

    assert {client: images.tolist() for client, images in chosen.items()} == {
        "a": [0, 1, 2, 3, 4],
        "b": [0, 1, 3, 4, 5],
    }


def test_images_that_a_client_was_not_shown_do_not_count():
    hidden = {name: LABELS.where(LABELS < 2, -1) for name in "abc"}
    synthetic = SyntheticSet(torch.zeros(len(LABELS), 3, 1, 1, dtype=torch.uint8), LABELS, CLIENTS, CLASSES)

    scored = score_teachers([upload(name, 0.9) for name in "abc"], synthetic, hidden, "quality")

    assert scored["a"].reads_others == above_chance(1.0, 4, 20)
