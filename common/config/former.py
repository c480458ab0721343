"""Keys and values of earlier versions, and what became of each, so that an old file gets a helpful error."""

from collections.abc import Mapping
from typing import Any

from common.config.fields import ConfigError

GONE = "is gone: no measurement spoke for it"
PRESET = "is gone: it belongs to preset 'authors'"
KEYS = {
    "federation": "is now called 'dataset'",
    "statistics-by-class": "is now part of 'statistics', which takes 'global' or 'class'",
    "statistics-looks": "is now part of 'statistics', which takes 'class/2' to 'class/16'",
    "guidance-start": "is gone: guidance begins at the first step, and 'guided-until' says where it ends",
    "guidance-stop": "is now called 'guided-until'",
    "diffusion-revision": "is now part of 'diffusion-model', as in 'repo@revision'",
    "diffusion-variant": "is gone: the weight files that are there are opened",
    "upload-dtype": "is gone: weights are sent as float16, where it holds their values",
    **dict.fromkeys(("max-redraws", "min-distance", "min-agreement", "distillation-weight"), GONE),
    "statistics-reduction": GONE,
    **dict.fromkeys(("guidance-step", "denoiser-passes", "guidance-gradient", "class-statistics"), PRESET),
    "noise-editing-guidance-scale": PRESET,
}
"""Key of an earlier version -> what became of it, as words that follow the key."""
VALUES = {("preset", "exact"): "authors"}
"""Key and value of an earlier version -> what the value is called now."""


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError, which says what became of it, for the first key or value of an earlier version."""
    for key, value in given.items():
        if key in KEYS:
            raise ConfigError(f"config key '{key}' {KEYS[key]}")
        for (of_key, former), now in VALUES.items():
            if key == of_key and value == former:
                raise ConfigError(f"{key} '{former}' is now called '{now}'")
