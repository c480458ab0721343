"""An experiment as a TOML file.

Top-level keys are run config keys that hold for all, and these of the experiment's own:

`seeds`          of the runs; `[0]` where not given
`methods`        the rows: names of `baselines.methods.NAMES`, or `"all"`; none where not given
`public`         image folder of unlabelled public images, for `feddf`; an embedded dataset has its own
`layout`         what `--smoke` builds in place of the data: one of `smoke.LAYOUTS`
`[settings.X]`   run config keys over the top-level ones: each setting is a `fedlmg run` for every seed
`[variants.X]`   rows whose images are generated anew on each run's uploads, as run config keys over the setting's
`[published.X]`  method or variant -> the mean accuracy in % that the paper gives for setting X

`{data}` in a text stands for the folder that the command line names.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.config import Config, ConfigError
from fedlmg_server.baselines import methods

OWN = ("seeds", "methods", "public", "layout", "settings", "variants", "published")


@dataclass(frozen=True)
class Experiment:
    settings: dict[str, dict]
    """Name -> run config keys."""
    variants: dict[str, dict]
    """Name -> run config keys over those of a setting."""
    seeds: list[int]
    methods: list[str]
    public: str
    layout: str
    published: dict[str, dict[str, float]]
    """Setting -> row -> accuracy in %."""

    def with_keys(self, keys: dict) -> "Experiment":
        """The experiment with these run config keys in every setting, whatever it says itself."""
        return replace(
            self,
            settings={name: own | keys for name, own in self.settings.items()},
            variants={
                name: {key: value for key, value in own.items() if key not in keys}
                for name, own in self.variants.items()
            },
        )

    def cells(self) -> Iterator[tuple[str, int]]:
        """Setting and seed of every run."""
        return ((setting, seed) for setting in self.settings for seed in self.seeds)


def read(file: Path, data: Path | None = None) -> Experiment:
    """
    Raises
    ------
    ConfigError: an unreadable file, an unknown key or method, an impossible value, or `{data}` without a folder.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"experiment {file} cannot be read: {error}") from None
    content = _filled(content, file, data)
    own = {key: content.pop(key) for key in OWN if key in content}
    if own.get("methods") == "all":
        own["methods"] = list(methods.NAMES)
    _check_kinds(own, file)
    settings = {name: content | keys for name, keys in own.get("settings", {"default": {}}).items()}
    experiment = Experiment(
        settings=settings,
        variants=own.get("variants", {}),
        seeds=own.get("seeds", [0]),
        methods=own.get("methods", []),
        public=own.get("public", ""),
        layout=own.get("layout", ""),
        published=own.get("published", {}),
    )
    _check(experiment, file)
    return experiment


def _filled(value, file: Path, data: Path | None):
    """Every text with the data folder in place of `{data}`."""
    if isinstance(value, dict):
        return {key: _filled(item, file, data) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, file, data) for item in value]
    if isinstance(value, str) and "{data}" in value:
        if data is None:
            raise ConfigError(f"experiment {file} needs its data: name their folder with --data, or try --smoke")
        return value.replace("{data}", str(data.resolve()))
    return value


def _check_kinds(own: dict, file: Path) -> None:
    for key, kind, wanted in (
        ("seeds", list, "a list of whole numbers"),
        ("methods", list, 'a list of names, or "all"'),
        ("public", str, "a folder's name"),
        ("layout", str, "a name"),
        *((key, dict, f"tables: [{key}.NAME]") for key in ("settings", "variants", "published")),
    ):
        if key in own and not isinstance(own[key], kind):
            raise ConfigError(f"experiment {file} has {key} = {own[key]!r}; write {wanted}")
        if kind is dict and any(not isinstance(item, dict) for item in own.get(key, {}).values()):
            raise ConfigError(f"experiment {file} has {key} that are no tables; write {wanted}")


def _check(experiment: Experiment, file: Path) -> None:
    if not experiment.methods and not experiment.variants:
        raise ConfigError(f"experiment {file} has neither `methods` nor [variants.NAME]: name at least one")
    if unknown := [name for name in experiment.methods if name not in methods.NAMES]:
        raise ConfigError(f"experiment {file} names the method '{unknown[0]}'; there are {', '.join(methods.NAMES)}")
    if strangers := set(experiment.published) - set(experiment.settings):
        raise ConfigError(f"experiment {file} has published figures of '{min(strangers)}', which is no setting of it")
    rows = {*experiment.methods, *experiment.variants}
    for setting, figures in experiment.published.items():
        if strangers := set(figures) - rows:
            raise ConfigError(f"experiment {file} has a published figure of '{min(strangers)}', no row of '{setting}'")
    if not experiment.seeds or not all(isinstance(seed, int) for seed in experiment.seeds):
        raise ConfigError(f"experiment {file} has the seeds {experiment.seeds}; name whole numbers")
    for keys in experiment.settings.values():
        Config.from_run_config(keys)
        for own in experiment.variants.values():
            Config.from_run_config(keys | own)
