"""Whether a SuperLink answers: asked on this machine, past any proxy, and no longer than it lives."""

import time
from collections.abc import Iterator

import pytest

from common.network import find_free_port
from fedlmg_server.flower.health import is_healthy, wait_until_healthy
from tests.common.http_server import answering


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that answers every request with 200."""
    with answering(200) as (address, _):
        yield int(address.rpartition(":")[2])


def test_a_server_that_answers_is_healthy(port: int):
    assert is_healthy(port)


def test_the_proxy_of_the_environment_is_not_asked(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{find_free_port()}")

    assert is_healthy(port)


def test_a_server_that_fails_is_not_healthy():
    with answering(500) as (address, _):
        assert not is_healthy(int(address.rpartition(":")[2]))


def test_nobody_waits_for_a_server_that_has_ended():
    started = time.monotonic()

    assert not wait_until_healthy(60, lambda: False, find_free_port())
    assert time.monotonic() - started < 30


def test_a_server_that_does_not_answer_in_time_is_given_up():
    assert not wait_until_healthy(0.3, lambda: True, find_free_port())
