"""What a stranger meets at the door of a running server: every way in is refused, with these words."""

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.network import has_ipv6
from fedlmg_server.deployment import certificates, setup
from fedlmg_server.deployment.settings import Deployment
from tests.e2e.network import ROOT, SecureNetwork, until
from tests.e2e.test_deployment import NGINX

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NGINX, reason="nginx is not installed")]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> Iterator[SecureNetwork]:
    network = SecureNetwork(tmp_path_factory.mktemp("security"), pipeline_folder)
    try:
        network.start_server()
        yield network
    finally:
        network.stop()


def post(network: SecureNetwork, path: str, body: bytes = b"", scheme: str = "https") -> tuple[int, str]:
    """Status and text of the answer."""
    context = ssl.create_default_context(cafile=str(network.root / "ca.crt")) if scheme == "https" else None
    url, headers = f"{scheme}://127.0.0.1:{network.client_port}{path}", {"Content-Type": "application/protobuf"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def says(network: SecureNetwork, client: str, words: str) -> None:
    """Wait for the client's status line."""
    until(lambda: words in " ".join(network.log(client).split()), f"'{words}' from {client}", 90)


def test_plain_http_is_refused(network: SecureNetwork):
    status, text = post(network, "/v1/fleet/pull-messages", scheme="http")

    assert status == 400
    assert "The plain HTTP request was sent to HTTPS port" in text


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/v1/control/list-runs", "/", "/health"])
def test_only_the_fleet_api_is_reached(network: SecureNetwork, path: str):
    assert post(network, path)[0] == 403


def test_an_oversized_body_is_refused(network: SecureNetwork):
    status, text = post(network, "/v1/fleet/push-object", bytes(17_000_000))

    assert status == 413
    assert "413 Request Entity Too Large" in text


def test_a_fleet_request_without_a_key_is_refused(network: SecureNetwork):
    assert post(network, "/v1/fleet/pull-messages")[0] == 401


def test_a_client_does_not_trust_another_authority(network: SecureNetwork):
    other, _ = certificates.make_authority()
    (network.folder / "other.crt").write_bytes(other)
    network.register("trusting")

    network.join("trusting", ca=network.folder / "other.crt")

    says(network, "trusting", "not signed by the authority of the `--ca` file")


def test_an_unregistered_key_is_refused(network: SecureNetwork):
    network.do("fedlmg_client.cli", "keygen", str(network.key("stranger")))

    network.join("stranger")

    says(network, "stranger", "the server's operator has not registered this client's key")


def test_a_client_without_a_key_is_told_that_it_needs_one(network: SecureNetwork):
    network.join("keyless", options=("--ca", str(network.root / "ca.crt")))

    says(network, "keyless", "join with --key and --name")


def test_a_certificate_for_another_address_is_told(network: SecureNetwork):
    network.register("elsewhere")

    network.join("elsewhere", host="127.0.0.9")

    says(network, "elsewhere", f"is not for 127.0.0.9:{network.client_port}, but for another name or address")


def test_a_client_whose_clock_is_off_is_told_the_time(network: SecureNetwork):
    network.register("late")
    clock = network.folder / "clock"
    clock.write_text("-900")
    path = os.pathsep.join([str(ROOT / "tests" / "e2e" / "clock"), str(ROOT)])

    network.join("late", environment={"CLOCK_JUMP": str(clock), "PYTHONPATH": path})

    says(network, "late", "this machine's clock is 15 minutes behind the server's")
    assert "registered" not in network.log("late")


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_client_joins_by_ipv6(network: SecureNetwork):
    network.register("six")

    network.join("six", host="[::1]")

    until(lambda: "online" in client_line(network, "six"), "client by IPv6", 90)


def client_line(network: SecureNetwork, client: str) -> str:
    """The client's line in `fedlmg server status`."""
    lines = network.do("fedlmg_server.cli", "server", "status", str(network.root)).splitlines()
    return next((line for line in lines if client in line), "")


def test_an_expired_certificate_is_refused(tmp_path: Path, pipeline_folder: Path):
    network = SecureNetwork(tmp_path, pipeline_folder)
    try:
        network.start_server()
        network.register("punctual")
        setup.write_certificate(Deployment.load(network.root), days=-1)
        network.find("server", "nginx").send_signal(1)

        network.join("punctual")

        says(network, "punctual", "the server's certificate has expired")
    finally:
        network.stop()
