"""Network ports of this machine."""

import socket


def find_free_port() -> int:
    """A port of 127.0.0.1 on which no program listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
