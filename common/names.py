"""Names of clients and classes: which can be shown, and how each becomes a file name."""

import hashlib
import re

LONGEST_NAME = 100
"""Characters of a client's or a class's name."""


def is_sane_name(name: object) -> bool:
    """A name that can be shown and compared: a printable string of 1 to 100 characters without blank ends."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()


def safe_name(name: str) -> str:
    """A name from a client as a file name: itself when harmless, else its harmless characters and a hash."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        return name
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40] + "." + hashlib.sha256(name.encode()).hexdigest()[:8]
