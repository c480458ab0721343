"""`run.json`, a workspace's record: the run's settings, and the newest command's options."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.config import Config, ConfigError

FILE = "run.json"
SCHEMA = 2
"""Of the file: 1, which had no number, held keys of other names."""
MAY_CHANGE = ("num-clients", "min-clients", "deadline-seconds", "max-upload-megabytes", "max-classes", "max-images")
"""Keys that a workspace's run may be continued with other values of: whom to wait for, and how much to accept."""


def make(config: Config) -> dict[str, Any]:
    """What a workspace keeps of a config: all but the workspace's own path."""
    settings = config.settings()
    options = {key: value for key, value in config.to_run_config().items() if key not in settings}
    options.pop("workspace")
    return {"schema": SCHEMA, "seed": config.seed, "config": settings, "options": options}


def read(path: Path) -> tuple[dict[str, Any], Config]:
    """A workspace's record, and the config of its run.

    Raises
    ------
    ConfigError: it is none, or one of another version.
    """
    made: Any = None
    with suppress(ValueError):
        made = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(made, dict) or not isinstance(made.get("config"), dict):
        raise ConfigError(f"{path} is no record of a run: take another workspace, or put back the file")
    if made.get("schema") == SCHEMA:
        with suppress(ConfigError):
            options = made.get("options", {}) | {"workspace": str(path.parent)}
            return made, Config.from_run_config(made["config"] | options)
    raise ConfigError(
        f"workspace {path.parent} was made by another version of FedLMG, whose settings this one cannot read: use that "
        "version again, or another workspace"
    )


def list_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each setting that differs and is not in `MAY_CHANGE`."""
    keys = sorted((old.keys() | new.keys()) - set(MAY_CHANGE))
    return [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)]
