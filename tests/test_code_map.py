"""The README's code map names the folders and modules that there are."""

import re
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, repository_files, trees


def code_map_lines() -> list[str]:
    """Lines of the fenced block under the README's heading "Code map"."""
    block = re.search(r"^## Code map\n+```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert block, "the README has no code map"
    return block[1].splitlines()


def code_map() -> set[str]:
    """Folders named in the code map, as paths."""
    folders, top = set(), ""
    for line in code_map_lines():
        names = re.findall(r"(?<![\w/])([\w/]+)/(?=[\s,;]|$)", line)
        if not line.startswith(" "):
            top = names[0]
        folders |= {name if name in (*PACKAGES, "deploy", "tests") else f"{top}/{name}" for name in names}
    return folders


def test_every_folder_of_the_code_map_exists():
    found = {"/".join(path.parts[:depth]) for path in map(Path, repository_files()) for depth in (1, 2, 3)}

    named = {re.sub(r"/(readers|embedded)$", r"/datasets/\1", path) for path in code_map()}

    assert {
        path
        for path in named
        if path not in found and not any(ROOT.glob(f"{path.split('/')[0]}/*/{path.split('/')[-1]}"))
    } == set()


def test_every_package_stands_in_the_code_map():
    packages = {
        str(Path(path).parent) for path in trees() if path.endswith("__init__.py") and path.startswith(PACKAGES)
    }

    last = {path.split("/")[-1] for path in code_map()}
    assert {package for package in packages if package.split("/")[-1] not in last} == set()


def test_every_module_of_the_code_map_exists():
    named = {name for line in code_map_lines() for name in re.findall(r"\w+\.py", line)}

    assert named <= {Path(path).name for path in repository_files()}


def test_code_map_is_short():
    assert len(code_map_lines()) <= 12


@pytest.mark.parametrize(
    ("words", "room"),
    [
        ("sampler", "synthesis/"),
        ("data layout", "datasets/"),
        ("baseline", "baselines/"),
        ("validation check", "collection/"),
        ("diffusion family", "diffusion/"),
        ("page", "report/"),
    ],
)
def test_code_map_says_where_to_add(words: str, room: str):
    lines = [line for line in code_map_lines() if re.search(rf"\b{words}\b", line)]

    assert any(room in line for line in lines)
