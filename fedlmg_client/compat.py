"""Undocumented parts of Flower that the client uses. What the server uses too is in `common/compat.py`.

Tried with Flower 1.41.0 and 1.42.0. `tests/client/test_compat.py` fails when one of them changes.
"""

from collections.abc import Callable

CHUNK_SIZE_VARIABLE = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
"""The environment variable with the size in bytes of the pieces in which Flower sends weights."""
PUSH_OBJECT, PULL_MESSAGES = "/v1/fleet/push-object", "/v1/fleet/pull-messages"
"""Paths of a SuperNode's requests: it sends a piece of its reply; it asks for the next message."""
ACTIVATION_REFUSED = "[code: 2004]"
"""What a SuperNode prints when the SuperLink does not know its key, or still counts its earlier connection."""

Request = Callable[..., object]
"""A method of Flower's HTTP client: it gets the client and, by keyword, `path` and the protobuf message `request`; it
raises an httpx error."""


def wrap_requests(wrap: Callable[[Request], Request]) -> None:
    """Replace the method that sends every request of this process by what `wrap` makes of it.

    Flower has interceptors, but `flower-supernode` takes none.
    """
    from flwr.supercore.protobuf.client import ProtobufClient

    ProtobufClient._unary_unary = wrap(ProtobufClient._unary_unary)  # type: ignore[method-assign, assignment]  # that is the purpose
