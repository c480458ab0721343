"""Classes of a client that a run goes on without, in a sentence."""

from collections.abc import Mapping

from common.contracts import show_value

MOST_SHOWN = 5
"""Classes that a sentence names."""


def explain_left_out(why: Mapping[str, str]) -> str:
    """A sentence that follows a client's name: which of its classes are left out, and why the first of them is.

    why: class -> why, in a clause; at least one.
    """
    shown = ", ".join(map(show_value, list(why)[:MOST_SHOWN]))
    more = f" and {len(why) - MOST_SHOWN} more" if len(why) > MOST_SHOWN else ""
    subject = f"its class {shown} is" if len(why) == 1 else f"its classes {shown}{more} are"
    return f"{subject} left out: {next(iter(why.values()))}"
