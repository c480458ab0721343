"""The folder for what can be made again but takes long, kept across runs: `~/.cache/fedlmg`."""

import os
from pathlib import Path

VARIABLE = "FEDLMG_CACHE"
"""Environment variable that names another folder."""


def image_cache() -> Path:
    """Where commands that belong to no client keep decoded images (see `readers/squares.py`)."""
    return cache_root() / "decoded-images"


def cache_root() -> Path:
    """The folder, which need not exist yet."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "fedlmg").expanduser().absolute()
