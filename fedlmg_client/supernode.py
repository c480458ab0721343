"""Flower's SuperNode, which retries when the server is busy, and writes status events: connection and bytes sent.

Usage: `python -m fedlmg_client.supernode PARENT CACHE FLAGS`, with the flags of `flower-supernode`. The process ends
when the one with the process id PARENT, which started it, ends.
"""

import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from common.processes import end_with_parent
from fedlmg_client.compat import PULL_MESSAGES, PUSH_OBJECT, Request, wrap_requests
from fedlmg_client.connection_trouble import explain_answer, explain_transport_error
from fedlmg_client.status import ConnectionChanged, PartSent, ReplySent, append_event

WAITS_SECONDS = (1, 2, 4, 8, 16, 32)
"""Pauses between retries of a request that the server answered with 500. Flower itself would drop the reply."""


def watch_requests(cache: Path) -> None:
    """Retry requests that fail inside the server, and write events: changes of the connection, and replies sent."""
    lock, reason, replying = threading.Lock(), None, False

    def report_connection(now: str) -> None:
        nonlocal reason
        with lock:
            if now != reason:
                reason = now
                append_event(cache, ConnectionChanged(reason=now))

    def watch(request: Request) -> Request:
        def watched(client: object, **call: Any) -> object:
            nonlocal replying
            for wait in (*WAITS_SECONDS, None):
                try:
                    answer = request(client, **call)
                    break
                except httpx.TransportError as error:
                    report_connection(explain_transport_error(error))
                    raise
                except httpx.HTTPStatusError as error:
                    report_connection(explain_answer(error.response))
                    if wait is None or error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                        raise
                    time.sleep(wait)
            report_connection("")
            if call["path"] == PUSH_OBJECT:
                replying = True
                append_event(cache, PartSent(bytes=len(call["request"].object_content)))
            elif call["path"] == PULL_MESSAGES and replying:
                # A SuperNode asks for the next message only after it has sent its reply.
                replying = False
                append_event(cache, ReplySent())
            return answer

        return watched

    wrap_requests(watch)


def main() -> None:
    end_with_parent(int(sys.argv.pop(1)))
    watch_requests(Path(sys.argv.pop(1)))
    (command,) = metadata.entry_points(group="console_scripts", name="flower-supernode")
    command.load()()


if __name__ == "__main__":
    main()
