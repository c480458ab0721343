"""The service units and the compose file, as far as they can be checked without installing them."""

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
import yaml

from fedlmg_client import cli as client
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


def test_every_system_starts_a_client_with_arguments_that_join_takes():
    plist = plistlib.loads((ROOT / "deploy" / "launchd" / "org.fedlmg.client.plist").read_bytes())
    task = ElementTree.parse(ROOT / "deploy" / "windows" / "fedlmg-client.xml").getroot()
    unit = (ROOT / "deploy" / "systemd" / "fedlmg-client.service").read_text()

    windows = str(task.findtext(".//{*}Arguments")).split()
    systemd = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).split()[1:]
    for arguments in (plist["ProgramArguments"][1:], windows, systemd):
        assert arguments[0] == "join"
        join_command = typer.main.get_command(client.app).commands["join"]
        context = join_command.make_context("join", arguments[1:], resilient_parsing=False)
        assert {"host", "ca", "key", "data", "name"} <= {name for name, value in context.params.items() if value}


def test_compose_runs_the_documented_commands():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]

    assert services["server"]["command"] == "fedlmg server up /srv/fedlmg"
    assert services["client"]["command"].startswith("fedlmg-client join")
    assert services["server"]["ports"] == ["9443:9443"]
