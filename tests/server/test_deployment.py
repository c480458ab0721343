"""What `fedlmg server init` makes, and what it refuses."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from common.network import has_ipv6
from fedlmg_client.server import read_address
from fedlmg_server.cli import app
from fedlmg_server.deployment import certificates, commands, proxy, setup, supervisor
from fedlmg_server.deployment.settings import Deployment, DeploymentError


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return setup.create_deployment(tmp_path / "server", ["gpu.example.org", "10.0.0.7"], 9443, 9444)


def verified(deployment: Deployment, host: str) -> bool:
    kind = "-verify_ip" if host[0].isdigit() or ":" in host else "-verify_hostname"
    command = ["openssl", "verify", "-x509_strict", kind, host, "-CAfile", deployment.authority, deployment.certificate]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("host", ["gpu.example.org", "10.0.0.7", "localhost", "127.0.0.1", "::1"])
def test_certificate_holds_for_every_name_of_the_server(deployment: Deployment, host: str):
    assert verified(deployment, host)


def test_certificate_holds_for_no_other_name(deployment: Deployment):
    assert not verified(deployment, "elsewhere.example.org")


def test_renewed_certificate_holds_for_its_new_name_alone(deployment: Deployment):
    renewed = setup.renew_certificate(deployment, ["new.example.org"])

    assert verified(renewed, "new.example.org")
    assert not verified(renewed, "gpu.example.org")


def test_expired_certificate_holds_for_none(deployment: Deployment):
    setup.write_certificate(deployment, days=-1)

    assert certificates.days_until_expiry(deployment.certificate) < 0
    assert not verified(deployment, "gpu.example.org")


def test_secrets_are_their_owner_s_alone(deployment: Deployment):
    secrets = [deployment.authority_key, deployment.certificate_key, deployment.superexec_secret]

    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    assert deployment.authority_key.parent.stat().st_mode & 0o777 == 0o700


def test_a_deployment_is_read_as_it_was_made(deployment: Deployment):
    assert Deployment.load(deployment.root) == deployment


def test_a_server_named_by_an_ipv6_address_listens_there(tmp_path: Path):
    made = setup.create_deployment(tmp_path / "server", ["2001:db8::7"], 9443, 9444)

    assert made.address == "[2001:db8::7]:9443"
    assert read_address(made.address) == made.address
    assert verified(made, "2001:db8::7")


@pytest.mark.parametrize(("is_there", "listens"), [(True, ["9443", "[::]:9443"]), (False, ["9443"])])
def test_nginx_listens_on_both_families_where_the_machine_has_both(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, is_there: bool, listens: list[str]
):
    monkeypatch.setattr(proxy, "has_ipv6", lambda: is_there)

    proxy.write_configuration(deployment)

    text = (deployment.nginx / "nginx.conf").read_text()
    assert re.findall(r"listen (\S+) ssl;", text) == listens


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_that_is_taken_in_one_family_is_refused(family: socket.AddressFamily, host: str):
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()

        with pytest.raises(DeploymentError, match="cannot be used"):
            supervisor.check_free(taken.getsockname()[1])


@pytest.mark.parametrize("host", ["fe80::1%eth0", "10.0.0.256", "[::1]", "a_b.org", "https://a.org", "a.org:9443"])
def test_what_no_certificate_can_hold_is_no_host(tmp_path: Path, host: str):
    with pytest.raises(DeploymentError, match="--host must be a DNS name or an IP address"):
        setup.create_deployment(tmp_path / "server", [host], 9443, 9444)


def test_a_second_init_changes_nothing(deployment: Deployment):
    before = deployment.authority.read_bytes()

    with pytest.raises(DeploymentError, match="holds a server already"):
        setup.create_deployment(deployment.root, ["other"], 1, 2)

    assert deployment.authority.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["init", "{}/new", "--host", "no host"], "must be a DNS name or an IP address, got 'no host'"),
        (["init", "{}/new", "--host", "a", "--port", "0"], "between 1 and 65535, got 0"),
        (["init", "{}/new", "--host", "a", "--superlink-port", "9443"], "must differ, but both are 9443"),
        (["up", "{}/new"], "is not the folder of a server: create one with"),
        (["status", "{}/new"], "is not the folder of a server: create one with"),
        (["add-client", "a", "{}/key.pub", "--server", "{}/new"], "is not the folder of a server: create one with"),
    ],
)
def test_bad_input_gets_a_sentence(tmp_path: Path, arguments: list[str], sentence: str):
    done = CliRunner().invoke(app, ["server", *(argument.format(tmp_path) for argument in arguments)])

    assert done.exit_code == 1
    assert sentence in done.output


@pytest.mark.parametrize("damaged", ["clients.json", "server.crt", "last-run.json", "private/ca.key"])
@pytest.mark.parametrize("content", ["{bad", "[]", '{"site-a": {}}'])
def test_a_damaged_file_of_the_server_is_named(deployment: Deployment, damaged: str, content: str):
    (deployment.root / damaged).write_text(content)

    done = CliRunner().invoke(
        app, ["server", "renew" if damaged == "private/ca.key" else "status", str(deployment.root)]
    )

    assert done.exit_code == 1
    assert str(deployment.root / damaged) in done.output.replace("\n", "")
    assert isinstance(done.exception, SystemExit)


def test_a_run_without_clients_says_how_to_add_one(deployment: Deployment):
    done = CliRunner().invoke(app, ["run", "--server", str(deployment.root)])

    assert done.exit_code == 1
    assert "no client is registered" in done.output


def test_status_lists_every_client_with_its_state(deployment: Deployment):
    deployment.registry.path.write_text('{"site-a": {"key": "", "node": 7}, "site-b": {"key": "", "node": 8}}')
    console = Console(width=100)

    with console.capture() as shown:
        console.print(
            commands._make_client_table(deployment, {7: {"status": "online", "online-at": "2026-01-02T03:04:05Z"}})
        )

    assert "site-a online 2026-01-0" in " ".join(shown.get().split())
    assert "site-b unknown" in " ".join(shown.get().split())


def test_a_process_that_dies_is_reported_with_the_cause(tmp_path: Path):
    program = "print('ERROR : Exit Code: 105'); print('The schema does not match'); print('more: <https://x>'); exit(1)"
    child = supervisor.Child("superlink", [sys.executable, "-c", program], {}, tmp_path / "log")
    child.start()
    child.process.wait()
    told: list[str] = []

    child.restart_if_dead(told.append)

    assert "superlink ended with code 1 (The schema does not match) and restarts in 2 s" in told[0]
