"""Names of clients and classes: which names are allowed, and how a name becomes a file name."""

import hashlib
import re

LONGEST_NAME = 100
"""The most characters that the name of a client or class may have."""

DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}
)
"""Names that Windows keeps for itself, whatever suffix they have."""


def is_sane_name(name: object) -> bool:
    """Whether a name can be shown and compared: a printable string of 1 to 100 characters without outer blanks."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()


def is_plain_name(name: str) -> bool:
    """Whether a name has 1 to 64 ASCII letters, digits, `_` and `-`, and begins with a letter or digit."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) is not None


def safe_name(name: str) -> str:
    """A client's or class's name as a file name, which no other name has, also where a file system folds case.

    A plain name without upper-case letters stays as it is. In any other name all but ASCII letters, digits, `_` and `-`
    become `_`, and a hash of the name is added. So it is with the names of Windows' devices, such as `con`.
    """
    is_device = name.upper() in DEVICES
    if is_plain_name(name) and name == name.lower() and not is_device:
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40] + ("_" if is_device else "")
    return f"{readable}.{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def folder_name(name: str) -> str:
    """A client's name as the name of a folder: the name itself if every system takes it as one, else `safe_name`.

    So `Site A` stays as it is, and `../a`, `a:b`, `nul` and names of other scripts become plain ones.
    """
    is_one = re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_. -]{0,62}[A-Za-z0-9_-])?", name)
    return name if is_one and name.split(".")[0].upper() not in DEVICES else safe_name(name)
