"""Flower's SuperNode, which retries when the server is busy, and writes status events: connection and bytes sent.

Usage: `python -m fedlmg_client.supernode CACHE FLAGS`, with the flags of `flower-supernode`. The process ends when its
parent ends.
"""

import os
import sys
import threading
import time
from pathlib import Path

import httpx
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supernode.cli.flower_supernode import flower_supernode

from common.processes import end_with_parent
from fedlmg_client.status import ConnectionChanged, PartSent, ReplySent, append_event

WAITS_SECONDS = (1, 2, 4, 8, 16, 32)
"""Pauses between retries of a request that the server answered with 500. Flower itself would drop the reply."""


def watch_requests(cache: Path) -> None:
    """Retry requests that fail inside the server, and write events: changes of the connection, and replies sent."""
    request = ProtobufClient._unary_unary
    lock, reason, replying = threading.Lock(), None, False

    def report_connection(now: str) -> None:
        nonlocal reason
        with lock:
            if now != reason:
                reason = now
                append_event(cache, ConnectionChanged(reason=now))

    def watched(self: ProtobufClient, **call: object) -> object:
        nonlocal replying
        for wait in (*WAITS_SECONDS, None):
            try:
                answer = request(self, **call)
                break
            except httpx.TransportError as error:
                report_connection(explain_transport_error(error))
                raise
            except httpx.HTTPStatusError as error:
                report_connection(explain_status_code(error.response.status_code))
                if wait is None or error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                time.sleep(wait)
        report_connection("")
        if call["path"] == "/v1/fleet/push-object":
            replying = True
            append_event(cache, PartSent(bytes=len(call["request"].object_content)))
        elif call["path"] == "/v1/fleet/pull-messages" and replying:
            # A SuperNode asks for the next message only after it has sent its reply.
            replying = False
            append_event(cache, ReplySent())
        return answer

    ProtobufClient._unary_unary = watched


def explain_transport_error(error: httpx.TransportError) -> str:
    """Why a request could not be sent, in words for the user."""
    if "certificate has expired" in str(error):
        return "the server's certificate has expired: ask its operator to run `fedlmg server renew`"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the server's certificate does not match the `--ca` file: ask its operator for the current ca.crt"
    return "the server cannot be reached"


def explain_status_code(code: int) -> str:
    """What an HTTP status code of the server, 400 or above, means to the user."""
    if code >= 500:
        return f"the server is busy (HTTP {code})"
    return f"the server rejects this client (HTTP {code}): ask its operator whether this client's key is registered"


def main() -> None:
    end_with_parent(os.getppid())
    watch_requests(Path(sys.argv.pop(1)))
    flower_supernode()


if __name__ == "__main__":
    main()
