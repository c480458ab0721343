"""Addresses of machines, and the way past proxies that child processes take to their own machine."""

import os
from collections.abc import Callable

import httpx
import pytest

from common.network import describe_proxy, find_unusable_proxy, is_address, join_address, reach_loopback_directly
from fedlmg_server.flower.connection import make_environment
from tests.common.http_server import answering

Get = Callable[[str], int]


@pytest.fixture(autouse=True)
def no_proxy_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def get_as_child(monkeypatch: pytest.MonkeyPatch) -> Get:
    """The status of an answer to a request that is sent with the environment of a child process."""

    def get(url: str) -> int:
        for name, value in reach_loopback_directly().items():
            monkeypatch.setenv(name, value)
        with httpx.Client(verify=False, timeout=5) as client:
            return client.get(url).status_code

    return get


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("excepted", ["", "gpu.example.org", "localhost, [::1]", "*"])
def test_a_child_reaches_its_own_machine_past_the_proxy(
    monkeypatch: pytest.MonkeyPatch, get_as_child: Get, variable: str, excepted: str
):
    with answering(200) as (address, asked), answering(403) as (proxy, asked_proxy):
        monkeypatch.setenv(variable, f"http://{proxy}")
        monkeypatch.setenv("NO_PROXY", excepted)

        status = get_as_child(f"http://{address}/")

    assert status == 200
    assert (len(asked), asked_proxy) == (1, [])


def test_a_child_reaches_others_by_the_proxy(monkeypatch: pytest.MonkeyPatch, get_as_child: Get):
    with answering(200) as (proxy, asked):
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy}")

        get_as_child("http://gpu.example.org/x")

    assert asked == ["http://gpu.example.org/x"]


def test_a_proxy_that_flower_cannot_use_does_not_stop_a_child(monkeypatch: pytest.MonkeyPatch, get_as_child: Get):
    monkeypatch.setenv("ALL_PROXY", "socks4://proxy:1080")
    with answering(200) as (address, _):
        status = get_as_child(f"http://{address}/")

    assert status == 200


def test_without_proxies_nothing_is_set():
    assert reach_loopback_directly() == {}


@pytest.mark.parametrize(
    ("url", "found"),
    [("proxy:3128", False), ("http://proxy:3128", False), ("socks4://u:p@proxy:1080", True), ("ftp://proxy", True)],
)
def test_a_proxy_that_flower_cannot_use_is_found(monkeypatch: pytest.MonkeyPatch, url: str, found: bool):
    monkeypatch.setenv("ALL_PROXY", url)

    assert bool(find_unusable_proxy()) is found
    assert "u:p" not in find_unusable_proxy()


def test_flowers_commands_reach_this_machine_past_the_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert "127.0.0.1" in make_environment()["no_proxy"].split(",")


def test_a_proxy_is_told_without_its_password():
    assert describe_proxy("http://user:p@ss@proxy:3128") == "http://proxy:3128"


@pytest.mark.parametrize(("text", "is_one"), [("10.0.0.1", True), ("::1", True), ("fe80::1%eth0", False), ("a", False)])
def test_an_address_is_told_from_a_name(text: str, is_one: bool):
    assert is_address(text) is is_one


def test_an_ipv6_address_has_brackets_before_its_port():
    assert (join_address("::1", 9443), join_address("a.org", 9443)) == ("[::1]:9443", "a.org:9443")
