"""Names and keys of clients: what may stand beside what."""

import json
from pathlib import Path

import pytest

from fedlmg_client import keys
from fedlmg_server.collection.registry import Registry, RegistryError
from fedlmg_server.flower.connection import FlowerError


class Line:
    """Answers as the SuperLink does, each key with a node of its own; the end-to-end tests ask a real one."""

    name = "server"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def run_flwr(self, *arguments: str) -> dict:
        self.asked.append(arguments)
        return {"node-id": str(len(self.asked))}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "clients.json")


@pytest.fixture
def public_keys(tmp_path: Path) -> list[Path]:
    return [keys.generate_key_pair(tmp_path / name) for name in ("first", "second")]


def test_a_client_is_found_by_its_node(registry: Registry, public_keys: list[Path]):
    node = registry.add(Line(), "site-a", public_keys[0])

    assert registry.read_names() == {node: "site-a"}


def test_the_same_pair_again_asks_nobody(registry: Registry, public_keys: list[Path]):
    line = Line()
    registry.add(line, "site-a", public_keys[0])

    registry.add(line, "site-a", public_keys[0])

    assert len(line.asked) == 1


class Ahead(Line):
    """A SuperLink that has done already what it is asked for, in its words: its node 7 is the key's."""

    def __init__(self, status: str = "registered") -> None:
        super().__init__()
        self.status = status

    def run_flwr(self, *arguments: str) -> dict:
        if arguments[1] == "list":
            return {"nodes": [{"node-id": "7", "status": self.status}]}
        code = "23] Public key already in use." if arguments[1] == "register" else "24] Node ID not found for account."
        raise FlowerError(f"[code: {code}")


def test_a_client_is_added_whose_key_an_interrupted_command_registered(registry: Registry, public_keys: list[Path]):
    registry.add(Ahead(), "site-a", public_keys[0])

    assert registry.read_names() == {7: "site-a"}


def test_a_key_that_was_removed_is_not_taken_again(registry: Registry, public_keys: list[Path]):
    with pytest.raises(RegistryError, match="Flower accepts no key twice: make another"):
        registry.add(Ahead("unregistered"), "site-a", public_keys[0])


def test_a_client_is_removed_that_an_interrupted_command_unregistered(registry: Registry, public_keys: list[Path]):
    registry.add(Line(), "site-a", public_keys[0])

    registry.remove(Ahead(), "site-a")

    assert registry.read_clients() == {}


def test_a_file_that_is_cut_short_is_told(registry: Registry):
    registry.path.write_text("")

    with pytest.raises(RegistryError, match=r"clients\.json is not the JSON"):
        registry.read_clients()


def test_a_removed_client_is_unregistered(registry: Registry, public_keys: list[Path]):
    line = Line()
    node = registry.add(line, "site-a", public_keys[0])

    registry.remove(line, "site-a")

    assert registry.read_clients() == {}
    assert line.asked[-1] == ("supernode", "unregister", str(node), "server")


@pytest.mark.parametrize(
    ("name", "key", "sentence"),
    [
        ("site-a", "second.pub", "'site-a' is registered with another key"),
        ("site-b", "first.pub", "is registered already as 'site-a'"),
        ("a b", "second.pub", "must have 1 to 64 letters"),
        ("site-b", "second", "is a private key, which must never leave its client"),
        ("site-b", "missing.pub", "missing.pub cannot be read"),
        ("site-b", "text.pub", "text.pub is not an ECDSA public key"),
    ],
)
def test_what_does_not_fit_is_refused(
    registry: Registry, public_keys: list[Path], tmp_path: Path, name: str, key: str, sentence: str
):
    registry.add(Line(), "site-a", public_keys[0])
    (tmp_path / "text.pub").write_text("hello")

    with pytest.raises(RegistryError, match=sentence):
        registry.add(Line(), name, tmp_path / key)

    assert list(json.loads((tmp_path / "clients.json").read_text())) == ["site-a"]


def test_an_unknown_client_cannot_be_removed(registry: Registry):
    with pytest.raises(RegistryError, match="no client is registered as 'site-z'; registered clients are: none"):
        registry.remove(Line(), "site-z")
