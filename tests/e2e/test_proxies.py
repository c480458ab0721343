"""A machine behind a proxy, as in hospitals and companies: its own processes pass it by, and its client uses it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.network import find_free_port
from tests.e2e.network import SecureNetwork, until
from tests.e2e.test_deployment import NGINX
from tests.e2e.test_security import client_line, says

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NGINX, reason="nginx is not installed")]
ELSEWHERE = "127.0.0.2"
"""An address of this machine that no program takes for its own, so that a proxy is asked for it."""
NOBODY = f"http://127.0.0.1:{find_free_port()}"
Proxy = Callable[[int], str]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> Iterator[SecureNetwork]:
    """A server that was set up and started where every variable names a proxy that does not answer."""
    network = SecureNetwork(tmp_path_factory.mktemp("proxies"), pipeline_folder)
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    network.environment |= dict.fromkeys(names, NOBODY)
    network.do("fedlmg_server.cli", "server", "renew", str(network.root), "--host", ELSEWHERE, "--host", "127.0.0.1")
    try:
        network.start_server()
        yield network
    finally:
        network.stop()


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Proxy]:
    """Starts a forward proxy that lets clients through to one port; returns its URL. Its log is `tinyproxy.log`."""
    if not (program := shutil.which("tinyproxy")):
        pytest.skip("tinyproxy is not installed")
    started: list[subprocess.Popen] = []

    def start(allowed: int) -> str:
        port, settings = find_free_port(), tmp_path / "tinyproxy.conf"
        settings.write_text(
            f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nConnectPort {allowed}\nLogLevel Connect\n"
            f'LogFile "{tmp_path / "tinyproxy.log"}"\nMaxClients 50\n'
        )
        started.append(subprocess.Popen([program, "-d", "-c", str(settings)]))
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.kill()
        process.wait()


def through(proxy: str) -> dict[str, str]:
    return {name: proxy for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")}


def test_a_server_and_a_client_of_one_machine_need_no_proxy(network: SecureNetwork):
    network.register("near")

    network.join("near")

    until(lambda: "online" in client_line(network, "near"), "client past the proxy", 120)


def test_a_client_reaches_its_server_through_a_proxy(network: SecureNetwork, tinyproxy: Proxy, tmp_path: Path):
    network.register("far")

    network.join("far", host=ELSEWHERE, environment=through(tinyproxy(network.client_port)))

    until(lambda: "online" in client_line(network, "far"), "client through the proxy", 120)
    assert f"CONNECT {ELSEWHERE}:{network.client_port}" in (tmp_path / "tinyproxy.log").read_text()


def test_a_proxy_that_lets_nobody_through_is_named(network: SecureNetwork, tinyproxy: Proxy):
    network.register("shut")

    network.join("shut", host=ELSEWHERE, environment=through(tinyproxy(443)))

    says(network, "shut", f"the proxy of this machine does not let it reach {ELSEWHERE}:{network.client_port}")
