"""Run config keys as a user gives them: a TOML file, and `key=value` texts over it."""

import re
import tomllib
from pathlib import Path
from typing import Any

from common.config import Config, ConfigError

PAIR = re.compile(r"([\w-]+)=('[^']*'|\"[^\"]*\"|\S+)")


def read_overrides(file: Path | None, texts: list[str]) -> dict[str, Any]:
    """Run config keys of a TOML file, and over them those of `key=value` texts, checked.

    Raises
    ------
    ConfigError: an unreadable file or text, an unknown key or an impossible value.
    """
    overrides: dict[str, Any] = {}
    if file is not None:
        try:
            overrides |= tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"config file {file} cannot be read: {error}") from None
    for text in texts:
        overrides |= parse_pairs(text)
    Config.from_run_config(overrides)
    return overrides


def parse_pairs(text: str) -> dict[str, Any]:
    """`key=value key='text'` as Flower reads it, except that text without blanks needs no quotes."""
    if PAIR.sub("", text).strip():
        raise ConfigError(f'--run-config "{text}" is not of the form "key=value key=\'text\'"')
    pairs: dict[str, Any] = {}
    for key, value in PAIR.findall(text):
        try:
            pairs |= {key: tomllib.loads(f"value = {value}")["value"]}
        except tomllib.TOMLDecodeError:
            pairs |= {key: value}
    return pairs
