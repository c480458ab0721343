"""A server and three clients by their own commands: TLS, keys, nginx; from nothing to a model on every client."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.network import SecureNetwork

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NGINX, reason="nginx is not installed")]
CLIENTS = ("site-a", "site-bb", "site-ccc")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> Iterator[SecureNetwork]:
    """A run that has ended, the server and its clients still there."""
    network = SecureNetwork(tmp_path_factory.mktemp("deployment"), pipeline_folder)
    try:
        network.up(CLIENTS)
        network.run_until_done()
        yield network
    finally:
        network.stop()


def test_every_client_holds_the_model(finished: SecureNetwork):
    models = {(finished.cache(name) / "aggregated" / "model.safetensors").read_bytes() for name in CLIENTS}

    assert models == {(finished.workspace / "model" / "model.safetensors").read_bytes()}


def test_every_client_measured_it(finished: SecureNetwork):
    results = json.loads((finished.workspace / "report" / "results.json").read_text())

    assert set(results["clients"]) == set(CLIENTS)
    assert None not in [client["aggregated_accuracy"] for client in results["clients"].values()]


def test_every_client_started_from_the_general_model_and_holds_a_personal_one(finished: SecureNetwork):
    manifests = [json.loads((finished.workspace / "uploads" / name / "manifest.json").read_text()) for name in CLIENTS]

    assert len({manifest["student_copy"]["start"] for manifest in manifests}) == 1
    assert all((finished.cache(name) / "personal" / "model.json").exists() for name in CLIENTS)


def test_what_the_round_was_worth_is_told(finished: SecureNetwork):
    results = json.loads((finished.workspace / "report" / "results.json").read_text())

    told = [(client["no_federation_accuracy"], client["personal_accuracy"]) for client in results["clients"].values()]
    assert None not in [accuracy for pair in told for accuracy in pair]


def test_status_shows_clients_and_uploads(finished: SecureNetwork):
    printed = finished.do("fedlmg_server.cli", "server", "status", str(finished.root))

    assert f"up at 127.0.0.1:{finished.client_port}" in printed
    assert all(f"{name} online" in " ".join(printed.split()) for name in CLIENTS)
    assert "3 uploads" in printed


def test_the_same_command_again_keeps_the_model(finished: SecureNetwork):
    before = (finished.workspace / "model" / "model.safetensors").read_bytes()

    finished.run_until_done()

    assert (finished.workspace / "model" / "model.safetensors").read_bytes() == before


def test_a_removed_client_is_no_longer_known(finished: SecureNetwork):
    finished.register("site-dddd")

    finished.do("fedlmg_server.cli", "server", "remove-client", "site-dddd", "--server", str(finished.root))

    assert "site-dddd" not in json.loads((finished.root / "clients.json").read_text())
