"""Names become file names that no two of them share."""

from itertools import combinations

import pytest

from common.names import safe_name

ALIKE = (
    "site",
    "Site",
    "SITE",
    "site ",
    "si/te",
    "si_te",
    "a.b",
    "a_b",
    "\N{GREEK SMALL LETTER SIGMA}",
    "x" * 65,
    "X" * 65,
)


@pytest.mark.parametrize(("one", "other"), list(combinations(ALIKE, 2)))
def test_no_two_names_share_a_file_also_where_case_is_folded(one: str, other: str):
    assert safe_name(one).casefold() != safe_name(other).casefold()


@pytest.mark.parametrize("name", ["site", "site-1", "0", "a_b", "mnist-2", "x" * 64])
def test_an_ordinary_name_stays_as_it_is(name: str):
    assert safe_name(name) == name
