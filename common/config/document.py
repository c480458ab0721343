"""Every setting as a page of Markdown, from the tables themselves: `python -m common.config.document`."""

import sys
from pathlib import Path
from typing import Any

from common.config.fields import accepted, fields_of, key
from common.config.node import NodeSettings
from common.config.options import Options
from common.config.run import TABLES, WITHOUT_WARM_START, Config
from common.config.simulation import DATASETS
from common.config.synthesis import PRESETS

PAGE = Path("deploy/CONFIG.md")
SETTINGS = {
    "The run": Config,
    "Clients": TABLES["clients"],
    "General knowledge": TABLES["general"],
    "Local training": TABLES["training"],
    "Synthesis": TABLES["synthesis"],
    "Distillation": TABLES["distillation"],
}
INTRODUCTION = """# Settings

This page is generated from `common/config` by `python -m common.config.document`.

Set keys with `fedlmg run --run-config "key=value key='text'"`, with `--config FILE.toml`, or with
`flwr run . --run-config "..."`. A key that is set wins over the value of its preset or data set, and that value wins
over the default. The value `"default"` means that a key is not set. "Ours" marks what is not in the paper.
"""


def render() -> str:
    """The whole page: settings, simulation, options of the command, node config."""
    parts = [INTRODUCTION, "## Settings of a run\n"]
    for title, table in SETTINGS.items():
        parts += [f"### {title}\n", _table(table)]
    parts += [_defaults("preset", {name: keys for name, keys in PRESETS.items() if keys})]
    parts += [_defaults("warm-start", {"false": WITHOUT_WARM_START})]
    parts += ["## Simulation\n", "For virtual clients. Real clients and runs over real clients ignore these keys.\n"]
    parts += [_table(TABLES["simulation"]), _defaults("dataset", DATASETS)]
    parts += ["## Options of the command\n", "They travel as run config keys and change nothing in a run's result.\n"]
    parts += [_table(Options)]
    parts += [
        "## Node config\n",
        "What a client says of itself: by options of `fedlmg-client join`, or by `flower-supernode --node-config`.\n"
        "Nobody else can set these keys for a client.\n",
        _table(NodeSettings),
    ]
    return "\n".join(parts)


def _table(table: type) -> str:
    """One line of Markdown for each key."""
    rows = ["| key | default | takes | meaning |", "| --- | --- | --- | --- |"]
    for name, field in fields_of(table).items():
        meaning = " ".join(_meaning(table, name).split()).replace("|", "\\|")
        rows.append(f"| `{key(name)}` | {_shown(field.default)} | {accepted(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _meaning(table: type, name: str) -> str:
    """The docstring below a field, in the table or in the one that it extends."""
    found = (
        fields_of(each)[name].description for each in table.__mro__ if name in getattr(each, "__annotations__", {})
    )
    return next(found) or ""


def _defaults(of: str, values: dict[str, dict[str, Any]]) -> str:
    lines = [f"Other defaults by `{of}`:\n"]
    for name, keys in values.items():
        lines.append(f"- `{name}`: " + ", ".join(f"`{key(each)}` {_shown(value)}" for each, value in keys.items()))
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    """A value as one writes it in TOML."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(render(), encoding="utf-8")
