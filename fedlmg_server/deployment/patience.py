"""Flower's SuperLink and SuperExec, patient with a slow disk.

`python -m fedlmg_server.deployment.patience COMMAND FLAGS`, with Flower's own command and flags. While uploads are
written, another writer may hold the SuperLink's database for longer than the 5 seconds that Flower waits for it. The
SuperLink then answers 500, at which its SuperExec ends, and with it every ServerApp that it started.
"""

import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import httpx
from sqlalchemy import event
from sqlalchemy.pool import Pool

BUSY_TIMEOUT_SECONDS = 25
"""For the database; whoever asked the SuperLink hangs up after 30."""
RETRY_SECONDS = 1


def wait_longer_for_the_database() -> None:
    """Every SQLite connection of this process, whatever it was opened with."""

    @event.listens_for(Pool, "checkout")
    def set_busy_timeout(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_SECONDS}")


def outlive_failures(command: Callable[[], None]) -> None:
    """Run it again in this very process, which ServerApps take for their parent, when the SuperLink fails within."""
    while True:
        try:
            return command()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            print(f"asked again in {RETRY_SECONDS} s: {error}", file=sys.stderr, flush=True)
            time.sleep(RETRY_SECONDS)


def main() -> None:
    sys.argv.pop(0)
    (command,) = metadata.entry_points(group="console_scripts", name=sys.argv[0])
    wait_longer_for_the_database()
    outlive_failures(command.load())


if __name__ == "__main__":
    main()
