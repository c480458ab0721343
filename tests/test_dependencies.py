"""What the packages import is declared in pyproject.toml, where it is needed, and has a version in constraints.txt."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "fedlmg_client", "fedlmg_server")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_ONE_SCRIPT = {"resvg-py"}
"""`uv run --with` installs it for the script that makes the emoji sheets."""
DISTRIBUTIONS = {name: found[0] for name, found in packages_distributions().items()}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Names of the distributions that the project needs always, and with these extras."""
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {normalise(Requirement(line).name) for group in groups for line in group}


def imported(package: str, only_at_start: bool = False) -> dict[str, str]:
    """Distribution -> one of the files of the package that imports it.

    only_at_start: not the imports inside functions, nor those for type checkers alone.
    """
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body if only_at_start else ast.walk(tree):
            for name in third_party_names(node):
                found[normalise(DISTRIBUTIONS.get(name, name))] = str(path.relative_to(ROOT))
    return {name: path for name, path in found.items() if name not in FOR_ONE_SCRIPT}


def third_party_names(node: ast.AST) -> Iterator[str]:
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [str(node.module)]
    for name in names:
        top = name.split(".")[0]
        if top not in (*sys.stdlib_module_names, *PACKAGES):
            yield top


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(package: str):
    undeclared = imported(package).keys() - declared(*PROJECT["optional-dependencies"])

    assert {name: imported(package)[name] for name in undeclared} == {}


@pytest.mark.parametrize(
    ("package", "extras"), [("common", ()), ("fedlmg_client", ("client",)), ("fedlmg_server", ("server",))]
)
def test_what_is_imported_at_start_is_installed(package: str, extras: tuple[str, ...]):
    missing = imported(package, only_at_start=True).keys() - declared(*extras)

    assert {name: imported(package)[name] for name in missing} == {}


def test_constraints_hold_a_version_of_every_dependency_that_it_allows():
    versions = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#")
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]

    for requirement in (Requirement(line) for group in groups for line in group):
        version = versions.get(normalise(requirement.name))
        assert version, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(version), f"constraints.txt has {requirement.name} {version}"
