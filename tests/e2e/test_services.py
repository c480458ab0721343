"""The service units and the compose file, as far as they can be checked without installing them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.network import ROOT

UNITS = ("fedlmg-server", "fedlmg-client")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_units_are_valid(name: str, tmp_path: Path):
    text = (ROOT / "deploy" / "systemd" / f"{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace("/opt/fedlmg/bin", str(Path(sys.executable).parent)))

    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)

    assert name not in checked.stderr


def test_compose_runs_the_documented_commands():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]

    assert services["server"]["command"] == "fedlmg server up /srv/fedlmg"
    assert services["client"]["command"].startswith("fedlmg-client join")
    assert services["server"]["ports"] == ["9443:9443"]
