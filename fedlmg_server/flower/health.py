"""Whether a SuperLink on this machine answers."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from fedlmg_server.flower.compat import HEALTH

POLL_SECONDS, TIMEOUT_SECONDS = 0.2, 2


def is_healthy(port: int, authority: Path | None = None) -> bool:
    """Whether the SuperLink on this port of the machine answers.

    authority: the file with the certificate that its own is signed by; None if it uses plain HTTP.
    """
    scheme, verify = ("https", ssl.create_default_context(cafile=str(authority))) if authority else ("http", True)
    try:
        # Calls to this machine never go through the proxy that the environment names.
        with httpx.Client(verify=verify, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            return client.get(f"{scheme}://localhost:{port}{HEALTH}").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def wait_until_healthy(seconds: float, is_alive: Callable[[], bool], port: int, authority: Path | None = None) -> bool:
    """Wait until the SuperLink answers; False if it is no longer alive, or does not answer within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_alive():
        if is_healthy(port, authority):
            return True
        time.sleep(POLL_SECONDS)
    return False
