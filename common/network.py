"""Network ports of this machine, addresses of others, and the way to this machine past any proxy."""

import ipaddress
import socket
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names under which a machine reaches itself."""
SERVER_PORT = 9443
"""The port that clients connect to, unless the operator chose another."""


def find_free_port() -> int:
    """A port of 127.0.0.1 on which no program listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_address(text: str) -> bool:
    """Whether `text` is an IP address, without the name of a network card (`%eth0`)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def join_address(host: str, port: int) -> str:
    """`HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def has_ipv6() -> bool:
    """Whether programs can listen on IPv6 addresses of this machine."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def reach_loopback_directly() -> dict[str, str]:
    """Environment variables with which a child process uses this machine's proxies, except for the machine itself.

    There are none if there is no proxy. On Windows and macOS the proxies of the system are among them, because a
    program that finds one such variable looks no further. A proxy that Flower cannot use is left out.
    """
    proxies = getproxies()
    excepted = [name.strip() for name in proxies.pop("no", "").split(",")]
    if not proxies:
        return {}
    # Flower ends at an address in brackets.
    excepted = [name[1:-1] if name.startswith("[") and name.endswith("]") else name for name in excepted]
    names = ",".join(dict.fromkeys(filter(None, [*excepted, *LOOPBACK])))
    used = {f"{scheme}_proxy": url if _is_usable(url) else "" for scheme, url in proxies.items()}
    return used | {"no_proxy": names, "NO_PROXY": names}


def find_unusable_proxy() -> str:
    """Why a proxy of this machine cannot be used by Flower, as a sentence for the user; empty if there is none."""
    proxies = [url for scheme, url in getproxies().items() if scheme in ("http", "https", "all")]
    if not (unusable := next((url for url in proxies if not _is_usable(url)), "")):
        return ""
    return (
        f"this machine's proxy must be an HTTP proxy, such as http://proxy:3128, and is {describe_proxy(unusable)}: "
        "set the environment variable HTTPS_PROXY, or unset ALL_PROXY"
    )


def describe_proxy(url: str) -> str:
    """A proxy's URL without user name and password."""
    scheme, divider, rest = url.rpartition("://")
    return f"{scheme}{divider}{rest.rpartition('@')[2]}"


def _is_usable(url: str) -> bool:
    """Whether Flower's HTTP client takes this proxy; a URL without a scheme is one of `http`."""
    scheme = urlsplit(url).scheme if "://" in url else "http"
    return scheme in ("http", "https") or (scheme in ("socks5", "socks5h") and find_spec("socksio") is not None)
