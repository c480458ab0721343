"""Flower's SuperNode that bears with a busy server, and tells the status: whether it is reached, how much was sent.

`python -m fedlmg_client.supernode CACHE FLAGS`, with the flags of `flower-supernode`. It ends with its parent.
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
from fedlmg_client.status import tell

WAITS_SECONDS = (1, 2, 4, 8, 16, 32)
"""Before a request that the server answered with 500 is made again; Flower itself would give the reply up."""


def watch_requests(cache: Path) -> None:
    """Make those again that fail within the server; tell of every reply sent, and of each change in reach."""
    request = ProtobufClient._unary_unary
    lock, reason, replying = threading.Lock(), None, False

    def note(now: str) -> None:
        nonlocal reason
        with lock:
            if now != reason:
                reason = now
                tell(cache, "connection", reason=now)

    def watched(self: ProtobufClient, **call: object) -> object:
        nonlocal replying
        for wait in (*WAITS_SECONDS, None):
            try:
                answer = request(self, **call)
                break
            except httpx.TransportError as error:
                note(reason_of(error))
                raise
            except httpx.HTTPStatusError as error:
                note(reason_of_status(error.response.status_code))
                if wait is None or error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                time.sleep(wait)
        note("")
        if call["path"] == "/v1/fleet/push-object":
            replying = True
            tell(cache, "sent", bytes=len(call["request"].object_content))
        elif call["path"] == "/v1/fleet/pull-messages" and replying:
            # The SuperNode asks for another message only when it has sent its reply.
            replying = False
            tell(cache, "reply-sent")
        return answer

    ProtobufClient._unary_unary = watched


def reason_of(error: httpx.TransportError) -> str:
    if "certificate has expired" in str(error):
        return "its certificate has expired, which its operator renews with `fedlmg server renew`"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not one that `--ca` vouches for"
    return "the server cannot be reached"


def reason_of_status(code: int) -> str:
    if code >= 500:
        return f"the server cannot answer now ({code})"
    return f"the server refuses ({code}): is this client's key registered?"


def main() -> None:
    end_with_parent(os.getppid())
    watch_requests(Path(sys.argv.pop(1)))
    flower_supernode()


if __name__ == "__main__":
    main()
