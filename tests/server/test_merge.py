"""The merge of classifiers that started from one model: what is added, how much, and what is left out."""

import pytest
import torch

from fedlmg_server.distillation.merge import (
    LARGER_SCALES,
    MOST_LOSS_OF_MORE,
    Member,
    add_differences,
    merge,
)

START = {
    "weight": torch.tensor([1.0, 2.0]),
    "running_var": torch.tensor([4.0]),
    "num_batches_tracked": torch.tensor(7),
}


def member(client: str, weight: list[float], variance: float = 4.0, share: float = 1.0) -> Member:
    state = {
        "weight": torch.tensor(weight),
        "running_var": torch.tensor([variance]),
        "num_batches_tracked": torch.tensor(9),
    }
    return Member(client, state, share)


def always(accuracy: float):
    return lambda state: accuracy


def test_scale_of_one_is_the_average():
    merged = add_differences(START, [member("a", [2.0, 2.0]), member("b", [1.0, 4.0])], 1.0)

    assert torch.equal(merged["weight"], torch.tensor([1.5, 3.0]))


def test_difference_counts_by_its_weight():
    merged = add_differences(START, [member("a", [2.0, 2.0], share=3.0), member("b", [1.0, 6.0], share=1.0)], 1.0)

    assert torch.equal(merged["weight"], torch.tensor([1.75, 3.0]))


def test_merge_of_one_member_at_scale_one_is_the_member():
    merged = add_differences(START, [member("a", [5.0, -1.0], 9.0)], 1.0)

    assert torch.allclose(merged["weight"], torch.tensor([5.0, -1.0]))
    assert torch.allclose(merged["running_var"], torch.tensor([9.0]))


def test_extrapolated_variance_stays_positive():
    merged = add_differences(START, [member("a", [1.0, 2.0], 0.5)], 3.0)

    assert 0 < merged["running_var"].item() < 0.5


def test_counter_of_batches_is_the_starts():
    merged = add_differences(START, [member("a", [1.0, 2.0])], 1.0)

    assert merged["num_batches_tracked"] == 7


def test_largest_scale_is_taken_that_keeps_general_knowledge():
    """Accuracy falls by half a point for each multiple of the first weight's difference."""

    def measure(state: dict) -> float:
        return 0.9 - 0.005 * (state["weight"][0].item() - 1.0)

    merged = merge(START, [member("a", [2.0, 2.0])], measure, 10)

    assert merged.scale == max(scale for scale in LARGER_SCALES if 0.005 * scale <= MOST_LOSS_OF_MORE + 1e-9)
    assert merged.state["weight"][0].item() == pytest.approx(1 + merged.scale)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(0.05, 1.0), (0.12, 0.75), (0.19, 0.5), (0.3, 0.0)],
    ids=["five points: the average", "twelve: three quarters", "nineteen: half", "thirty: the start"],
)
def test_less_than_the_average_is_added_only_where_that_costs_ten_points(cost: float, expected: float):
    """Two members, each read as the start: the accuracy falls with what is added of both."""

    def measure(state: dict) -> float:
        added = state["weight"] - START["weight"]
        return 0.9 - cost * 2 * min(added.tolist())

    merged = merge(START, [member("a", [2.0, 2.0]), member("b", [1.0, 3.0])], measure, 10)

    assert merged.scale == expected
    assert merged.state["weight"].tolist() == [1 + expected / 2, 2 + expected / 2]


def test_member_far_from_the_others_is_left_out():
    honest = [member(name, [1.1, 2.0]) for name in "abc"]

    merged = merge(START, [*honest, member("far", [50.0, 2.0])], always(0.9), 10)

    assert list(merged.left_out) == ["far"]
    assert merged.state["weight"][0].item() == pytest.approx(1 + 0.1 * LARGER_SCALES[-1])


def test_member_that_lost_general_knowledge_is_left_out():
    def measure(state: dict) -> float:
        return 0.1 if state["weight"][1] == 3.0 else 0.9

    merged = merge(START, [member("a", [1.1, 2.0]), member("poisoned", [1.1, 3.0])], measure, 10)

    assert list(merged.left_out) == ["poisoned"]


@pytest.mark.parametrize("members", [[("a", [9.0, 2.0])], []], ids=["one that forgot", "nobody"])
def test_where_nobody_can_be_trusted_the_start_goes_back(members: list):
    def measure(state: dict) -> float:
        return 0.9 if torch.equal(state["weight"], START["weight"]) else 0.1

    merged = merge(START, [member(*each) for each in members], measure, 10)

    assert (merged.scale, list(merged.left_out)) == (0.0, [client for client, _ in members])
    assert all(torch.equal(merged.state[name], value) for name, value in START.items())


def test_average_is_taken_where_general_images_tell_nothing():
    merged = merge(START, [member("a", [2.0, 2.0]), member("b", [4.0, 2.0])], always(0.1), 10)

    assert merged.scale == 1.0
    assert merged.state["weight"][0].item() == 3.0


def test_average_is_taken_where_no_real_images_are_there_to_tell():
    members = [member("a", [2.0, 2.0]), member("b", [4.0, 2.0])]

    merged = merge(START, members, always(0.9), 10, may_extrapolate=False)

    assert (merged.scale, merged.accuracies) == (1.0, {0.0: 0.9, 1.0: 0.9})
    assert merged.state["weight"][0].item() == 3.0


def test_less_than_the_average_is_added_where_that_no_longer_reads_drawn_images():
    """The average has 2.5 as its first weight, and three quarters of it 2.125."""

    def measure(state: dict) -> float:
        return 0.2 if 2.2 < state["weight"][0] < 2.8 else 0.9

    merged = merge(START, [member("a", [3.0, 2.0]), member("b", [2.0, 2.0])], measure, 10, may_extrapolate=False)

    assert merged.scale == 0.75
    assert merged.accuracies == {0.0: 0.9, 1.0: 0.2, 0.75: 0.9}


def test_member_that_lost_general_knowledge_is_left_out_of_an_average_as_well():
    def measure(state: dict) -> float:
        return 0.1 if state["weight"][1] == 3.0 else 0.9

    members = [member("a", [1.1, 2.0]), member("poisoned", [1.1, 3.0])]

    assert list(merge(START, members, measure, 10, may_extrapolate=False).left_out) == ["poisoned"]
