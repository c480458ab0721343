"""Names of clients and classes: which names are allowed, and how a name becomes a file name."""

import hashlib
import re

LONGEST_NAME = 100
"""The most characters that the name of a client or class may have."""


def is_sane_name(name: object) -> bool:
    """Whether a name can be shown and compared: a printable string of 1 to 100 characters without outer blanks."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()


def is_plain_name(name: str) -> bool:
    """Whether a name has 1 to 64 ASCII letters, digits, `_` and `-`, and begins with a letter or digit."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) is not None


def safe_name(name: str) -> str:
    """A client's or class's name as a file name, which no other name has, also where a file system folds case.

    A plain name without upper-case letters stays as it is. In any other name all but ASCII letters, digits, `_` and `-`
    become `_`, and a hash of the name is added.
    """
    if is_plain_name(name) and name == name.lower():
        return name
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40] + "." + hashlib.sha256(name.encode()).hexdigest()[:8]
