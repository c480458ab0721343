"""The folder for what can be made again but takes long, kept across runs: `~/.cache/fedlmg`."""

import os
from pathlib import Path

VARIABLE = "FEDLMG_CACHE"
"""Environment variable that names another folder."""


def cache_root() -> Path:
    """The folder, which need not exist yet."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "fedlmg").expanduser().absolute()
