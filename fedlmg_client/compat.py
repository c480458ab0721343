"""Undocumented parts of Flower that the client uses. What the server uses too is in `common/compat.py`.

Tried with Flower 1.41.0 and 1.42.0. `tests/client/test_compat.py` fails when one of them changes.
"""

import json
from collections.abc import Callable

CHUNK_SIZE_VARIABLE = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
"""The environment variable with the size in bytes of the pieces in which Flower sends weights."""
PUSH_OBJECT, PULL_MESSAGES = "/v1/fleet/push-object", "/v1/fleet/pull-messages"
"""Paths of a SuperNode's requests: it sends a piece of its reply; it asks for the next message."""
KEY_NEEDED, NOT_ACTIVATED, RUN_HAS_ENDED = 2001, 2004, (2007, 2008, 2009)
"""Codes in a SuperLink's answers: it takes registered keys only; it does not know this key, or still counts an earlier
connection; the run of this message is over."""
CLOCK_MAY_BE_OFF = (-4, 300)
"""Seconds by which the clock of a SuperNode may be behind its SuperLink's: at more than -5 and 305 it gets 401."""
LASTING_EXITS = frozenset({302, 303, 304, 600, 602, 603, 604, 606})
"""Exit codes that a SuperNode logs when its flags, its key or its version are wrong: another start changes nothing."""

Request = Callable[..., object]
"""A method of Flower's HTTP client: it gets the client and, by keyword, `path` and the protobuf message `request`; it
raises an httpx error."""


def wrap_requests(wrap: Callable[[Request], Request]) -> None:
    """Replace the method that sends every request of this process by what `wrap` makes of it.

    Flower has interceptors, but `flower-supernode` takes none.
    """
    from flwr.supercore.protobuf.client import ProtobufClient

    ProtobufClient._unary_unary = wrap(ProtobufClient._unary_unary)  # type: ignore[method-assign, assignment]  # that is the purpose


def read_error_code(answer: str) -> int | None:
    """The code in the text of a SuperLink's answer that reports an error; None if there is none."""
    try:
        code = json.loads(answer)["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, int) else None
