"""The files of this repository, for tests of how it is laid out."""

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "fedlmg_client", "fedlmg_server")


@cache
def repository_files(*flags: str) -> tuple[str, ...]:
    """Paths that are tracked, or would be: what git ignores is left out."""
    flags = flags or ("--cached", "--others", "--exclude-standard")
    listing = subprocess.run(["git", "ls-files", "-z", *flags], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return tuple(sorted(name for name in set(listing.stdout.split("\0")) if name and (ROOT / name).is_file()))


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse((ROOT / name).read_text()) for name in repository_files() if name.endswith(".py")}
