"""Names become file names that no two of them share."""

from itertools import combinations
from pathlib import Path, PureWindowsPath

import pytest

from common.clients.node_config import CACHES, cache_path
from common.clients.virtual_folders import name_client
from common.config import Config
from common.names import DEVICES, folder_name, safe_name

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


EVIL = (
    "../../../evil/x",
    "..",
    ".",
    "",
    "/etc",
    "a/b",
    "a\\b",
    "C:",
    "a:b",
    "nul",
    "COM1.txt",
    "a.",
    "a ",
    "Größe",
    "~",
    "x" * 99,
)


@pytest.mark.parametrize("name", EVIL)
def test_a_folder_that_is_named_by_a_client_is_one_that_lies_in_its_parent(tmp_path: Path, name: str):
    folder = tmp_path / "caches" / folder_name(name)
    folder.mkdir(parents=True)

    assert [path.name for path in (tmp_path / "caches").iterdir()] == [folder_name(name)]
    assert len(list(tmp_path.iterdir())) == 1
    assert PureWindowsPath("C:/caches", folder_name(name)).parent == PureWindowsPath("C:/caches")
    assert folder_name(name).split(".")[0].upper() not in DEVICES


@pytest.mark.parametrize("name", ["site-a", "Site A", "NICO_unique", "a.b", "Photos 2024"])
def test_an_ordinary_name_names_its_folder(name: str):
    assert folder_name(name) == name


@pytest.mark.parametrize("name", EVIL[:-1])
def test_a_clients_cache_lies_in_the_caches(name: str):
    given = {"name": name, "data-path": "/x/images"}

    assert cache_path(given, Config()).parent == CACHES


def test_a_virtual_client_of_a_folder_in_another_script_has_a_name_and_a_cache_of_its_own(tmp_path: Path):
    config = Config.from_run_config({"folders": "/x/猫;/x/dogs", "dataset": "", "workspace": str(tmp_path)})

    assert [name_client(index, config) for index in range(2)] == ["client-0", "client-1"]
    assert cache_path({"partition-id": 0}, config) == tmp_path / "virtual-clients" / "client-0"
