"""kill -9, one process at a time, and clocks that jump: the same command ends with the model of an undisturbed run."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.storage.atomic import write_bytes
from tests.e2e.network import Network, until
from tests.e2e.slow_line import SlowLine

pytestmark = pytest.mark.slow


@pytest.fixture
def network(tmp_path: Path, pipeline_folder: Path) -> Iterator[Network]:
    network = Network(tmp_path, pipeline_folder)
    yield network
    network.stop()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> str:
    """sha256 of the model that nobody disturbed."""
    network = Network(tmp_path_factory.mktemp("undisturbed"), pipeline_folder)
    try:
        network.up()
        return network.run_until_done()
    finally:
        network.stop()


@pytest.mark.parametrize(
    ("part", "condition"),
    [("flwr-clientapp", "training"), ("fedlmg_client.supernode", "training")],
    ids=["client-app", "supernode"],
)
def test_a_client_killed_in_training(network: Network, undisturbed: str, part: str, condition: str):
    network.up()
    network.run()
    until(lambda: network.has_status("site-a", condition), "training")

    network.find("site-a", part).kill()

    assert network.processes["run"].wait(300) == 0
    assert network.run_until_done() == undisturbed


def test_a_supernode_killed_in_upload(network: Network, undisturbed: str):
    line = SlowLine(network.port, 1e6)
    network.client_port = line.port
    network.up()
    network.run()
    until(lambda: network.has_status("site-a", "sent"), "byte of the upload")

    network.find("site-a", "fedlmg_client.supernode").kill()

    assert network.processes["run"].wait(300) == 0
    assert network.run_until_done() == undisturbed
    line.close()


STAGES: dict[str, Callable[[Network], object]] = {
    "collecting": lambda network: network.has_stage("uploads"),
    "drawing": lambda network: network.has_stage("synthesis"),
    "distilling": lambda network: network.has_stage("distillation"),
    "reporting": lambda network: (network.workspace / "report" / "histories.json").exists(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_serverapp_killed(network: Network, undisturbed: str, stage: str):
    network.up()
    network.run()
    until(lambda: STAGES[stage](network), stage)

    network.find("superexec", "flwr-serverapp").kill()
    network.processes["run"].kill()

    assert network.run_until_done() == undisturbed
    assert (network.workspace / "report" / "index.html").exists()


def hold_database(network: Network, seconds: float) -> None:
    """As a slow disk does it, while an upload is on its way."""
    line = SlowLine(network.port, 4e6)
    network.client_port = line.port
    network.up()
    network.run()
    until(lambda: network.has_status("site-a", "sent"), "byte of the upload")
    with closing(sqlite3.connect(network.folder / "state.db", timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")


def test_a_database_held_for_longer_than_flower_waits(network: Network, undisturbed: str):
    hold_database(network, seconds=10)

    assert network.processes["run"].wait(300) == 0, network.last_words()
    assert network.run_until_done() == undisturbed


def test_a_database_held_until_flower_takes_the_serverapp_for_dead(network: Network, undisturbed: str):
    hold_database(network, seconds=65)

    assert network.processes["run"].wait(300) == 1, network.last_words()
    assert "the same command goes on" in (network.folder / "run.log").read_text()
    assert network.run_until_done() == undisturbed


def test_a_superexec_killed(network: Network, undisturbed: str):
    network.up()
    network.run()
    until(lambda: network.has_stage("uploads"), "collecting")

    network.processes["superexec"].kill()
    network.processes["superexec"].wait()

    assert network.processes["run"].wait(300) == 1
    assert "the same command goes on" in (network.folder / "run.log").read_text()
    network.start_superexec()
    assert network.run_until_done() == undisturbed


def test_a_superlink_killed_while_clients_train(network: Network, undisturbed: str):
    network.up()
    network.run()
    until(lambda: network.has_status("site-a", "training"), "training")

    network.processes["superlink"].kill()
    network.processes["superlink"].wait()
    network.start_superlink()

    assert network.processes["run"].wait(300) == 0
    assert network.run_until_done() == undisturbed


@pytest.mark.parametrize(("hours", "told"), [(2, "the same command goes on"), (-2, "Finished")])
def test_clocks_that_jump_while_clients_train(network: Network, undisturbed: str, hours: int, told: str):
    jump = network.folder / "jump"
    network.environment["CLOCK_JUMP"] = str(jump)
    network.environment["PYTHONPATH"] += f":{Path(__file__).parent / 'clock'}"
    network.up()
    network.run()
    until(lambda: network.has_status("site-a", "training"), "training")

    write_bytes(jump, str(3600 * hours).encode())
    network.processes["run"].wait(400)

    assert told in (network.folder / "run.log").read_text()
    assert network.run_until_done() == undisturbed
