"""Templates are found wherever the code runs, and escape what strangers wrote."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.html_page import load_template

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(
    path.relative_to(ROOT)
    for package in ("common", "fedlmg_client", "fedlmg_server")
    for path in (ROOT / package).rglob("*.j2")
)


@pytest.mark.parametrize("path", TEMPLATES, ids=str)
def test_every_template_is_found_and_can_be_read(path: Path):
    assert load_template(path).filename == str(ROOT / path)


def test_templates_lie_in_every_package():
    assert {path.parts[0] for path in TEMPLATES} == {"common", "fedlmg_client", "fedlmg_server"}


def test_a_bundle_that_carries_only_code_finds_the_installed_templates(tmp_path: Path):
    for path in (ROOT / "common").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    program = (
        "import common.html_page, pathlib; print(common.html_page.__file__); "
        f"print(common.html_page.load_template(pathlib.Path({str(TEMPLATES[-1])!r})).filename)"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)

    assert done.stdout.splitlines() == [str(tmp_path / "common/html_page.py"), str(ROOT / TEMPLATES[-1])], done.stderr
