"""Flower's SuperLink and SuperExec with longer waits for the database, so that a slow disk does not end a run.

Usage: `python -m fedlmg_server.deployment.patience COMMAND FLAGS`, with Flower's own command and flags.

While uploads are written, the SuperLink's database may be locked for longer than the 5 seconds that Flower waits. The
SuperLink then answers with HTTP 500. At that its SuperExec ends, and with it every ServerApp that it started.
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
"""How long to wait for the database. It must be less than 30 s, after which a SuperLink's client gives up."""
RETRY_SECONDS = 1


def wait_longer_for_the_database() -> None:
    """Set the busy timeout of every SQLite connection in this process."""

    @event.listens_for(Pool, "checkout")
    def set_busy_timeout(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_SECONDS}")


def outlive_failures(command: Callable[[], None]) -> None:
    """Run `command`, and run it again when the SuperLink answers with a server error.

    The command runs in this process, because ServerApps end when their parent process ends.
    """
    while True:
        try:
            return command()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            print(f"retrying in {RETRY_SECONDS} s: {error}", file=sys.stderr, flush=True)
            time.sleep(RETRY_SECONDS)


def main() -> None:
    sys.argv.pop(0)
    (command,) = metadata.entry_points(group="console_scripts", name=sys.argv[0])
    wait_longer_for_the_database()
    outlive_failures(command.load())


if __name__ == "__main__":
    main()
