"""Label spaces meet by class name, in one spelling."""

import pytest
import torch

from common import labels
from common.config import Config, ConfigError
from common.labels import maps


@pytest.mark.parametrize(
    ("spaces", "expected"),
    [
        ({"a": ["0", "1"], "b": ["0", "1"]}, ["0", "1"]),
        ({"a": ["10", "9"], "b": ["1"]}, ["1", "9", "10"]),
        ({"a": ["Cat", "dog"], "b": ["dog ", "cat", "red  fox"]}, ["Cat", "dog", "red fox"]),
    ],
    ids=["identical", "disjoint", "overlapping, other spelling"],
)
def test_union_holds_each_class_once(spaces: dict, expected: list[str]):
    spelt = labels.in_one_spelling(spaces, {})

    assert labels.union_of_names(list(spelt.values())) == expected


def test_each_client_keeps_the_order_of_its_classes():
    spelt = labels.in_one_spelling({"b": ["dog", "CAT"], "a": ["cat", "Dog"]}, {})

    assert spelt == {"a": ["cat", "Dog"], "b": ["Dog", "cat"]}


def test_alias_takes_the_spelling_of_the_class_it_stands_for():
    aliases = labels.parse_aliases("Automobile=motor car, motor car = car")

    spelt = labels.in_one_spelling({"a": ["automobile"], "b": ["Car", "motor  car"]}, aliases)

    assert spelt == {"a": ["Car"], "b": ["Car", "Car"]}


def test_alias_of_a_class_that_no_client_names_is_spelt_as_in_the_table():
    spelt = labels.in_one_spelling({"a": ["plane"]}, labels.parse_aliases("plane=Airplane"))

    assert spelt == {"a": ["Airplane"]}


@pytest.mark.parametrize("second", ["CAT", " cat", "puss", "cat"])
def test_two_names_of_one_class_at_one_client_are_refused(second: str):
    with pytest.raises(ValueError, match=r"classes 'cat' and .* count as one class"):
        labels.check_distinct(["cat", "dog", second], {"puss": "cat"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b, b=c, c=A", "must hold no cycle"),
        ("a=a", "must hold no cycle"),
        ("a=b, A=c", "two classes, 'b' and 'c'"),
        ("a", "must hold pairs"),
    ],
)
def test_alias_table_without_sense_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        Config.from_run_config({"class-aliases": text})


def test_class_that_the_model_lacks_has_no_index():
    indices = maps.find_indices(["Dog", "horse", "plane"], ["airplane", "dog"], {"plane": "airplane"})

    assert torch.equal(indices, torch.tensor([1, -1, 0]))
