import pytest

from common.worth import mean_of_pairs, say_worth


@pytest.mark.parametrize(
    ("without", "with_round", "sentence"),
    [
        (0.812, 0.834, "Without the round you would have 81.2 %, with it 83.4."),
        (
            0.812,
            0.8123,
            "On your own images the round was worth nothing: without it you would have 81.2 %, with it the same.",
        ),
        (
            0.834,
            0.812,
            "On your own images the round cost you 2.2 points: without it you would have 83.4 %, with it 81.2.",
        ),
        (0.0, 0.0005, "Without the round you would have 0.0 %, with it 0.1."),
        (None, 0.834, ""),
        (0.812, None, ""),
    ],
)
def test_a_gain_nothing_and_a_loss_are_told_apart(without: float | None, with_round: float | None, sentence: str):
    assert say_worth(without, with_round) == sentence


def test_everybody_s_images_stand_beside_the_client_s_own():
    assert say_worth(0.812, 0.834, (0.71, 0.79)).endswith("with it 83.4; on everybody's images 71.0 and 79.0.")


def test_the_sentence_speaks_of_somebody_else():
    sentence = say_worth(0.834, 0.812, who="mnist")

    assert sentence.startswith("On its own images the round cost mnist 2.2 points: without it mnist would have 83.4 %")


def test_a_mean_of_pairs_leaves_out_whoever_lacks_one():
    assert mean_of_pairs([(0.5, 0.75), (None, 1.0), (0.25, None), (1.0, 0.25)]) == (0.75, 0.5)
    assert mean_of_pairs([(None, 1.0)]) == (None, None)
