"""Flower's SuperNode that also tells the status: whether it reaches the server, and how many bytes it has sent.

`python -m fedlmg_client.supernode CACHE FLAGS`, with the flags of `flower-supernode`. It ends with its parent.
"""

import os
import sys
import threading
from pathlib import Path

import httpx
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supernode.cli.flower_supernode import flower_supernode

from common.processes import end_with_parent
from fedlmg_client.status import tell


def watch_requests(cache: Path) -> None:
    """Tell of every reply that is sent, and of each change between reached and not."""
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
        try:
            answer = request(self, **call)
        except httpx.TransportError as error:
            note(reason_of(error))
            raise
        except httpx.HTTPStatusError as error:
            note(f"the server refuses ({error.response.status_code}): is this client's key registered?")
            raise
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


def main() -> None:
    end_with_parent(os.getppid())
    watch_requests(Path(sys.argv.pop(1)))
    flower_supernode()


if __name__ == "__main__":
    main()
