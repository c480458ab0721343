"""Put on PYTHONPATH: Python's and Flower's wall clock is off by the seconds in the file CLOCK_JUMP, once it exists."""

import datetime
import os
import sys
import time
from types import SimpleNamespace

real_time, real_now = time.time, datetime.datetime.now


def jump() -> float:
    try:
        with open(os.environ["CLOCK_JUMP"]) as file:
            return float(file.read())
    except FileNotFoundError:
        return 0.0


def now(tz: datetime.tzinfo | None = None) -> datetime.datetime:
    return real_now(tz) + datetime.timedelta(seconds=jump())


time.time = lambda: real_time() + jump()
if any("flwr" in part or "flower" in part or "fedlmg" in part for part in sys.orig_argv):
    import flwr.supercore.date

    flwr.supercore.date.datetime = SimpleNamespace(UTC=datetime.UTC, datetime=SimpleNamespace(now=now))
