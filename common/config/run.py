"""Every setting of a run: frozen tables, one for each stage, filled from Flower's flat run config (kebab-case keys)."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat
from pydantic.dataclasses import dataclass

from common import labels
from common.config import former
from common.config.fields import RULES, ConfigError, Count, Names, Text, fields_of, fill, key
from common.config.general import GeneralConfig
from common.config.options import Options
from common.config.simulation import CRASHING_ARCHITECTURE, DATASETS, SimulationConfig, faults_by_client
from common.config.synthesis import PRESETS, SynthesisConfig

UNSET = "default"
"""Value of a key that is not set: Flower asks an app to list its keys with a value each, and merges these into every
run config."""
LARGEST_SEED = 2**32 - 1
"""As NumPy has it; what is derived from a seed by multiplication stays within 64 bits."""


@dataclass(frozen=True, config=RULES)
class ClientsConfig:
    """Who takes part, and how long the server waits."""

    class_aliases: str = ""
    """Names that stand for another class, such as `automobile=car, plane=airplane`. Case and blanks never matter."""
    num_clients: Count = 4
    """Clients that are expected. The server stops waiting once it has heard from that number."""
    min_clients: Count = 2
    """Least number of uploads. With fewer at the deadline the run stops."""
    deadline_seconds: PositiveFloat = 3600.0
    """Longest wait for uploads, and again for evaluations, in seconds."""
    max_upload_megabytes: PositiveFloat = 1024.0
    """Largest upload that the server accepts, in MB (10**6 bytes) of tensors and manifest. Clients learn it before they
    send."""
    max_classes: Count = 1000
    """Most classes that a client may name, and that all clients together may have. A client with more is refused. If
    all together have more, the client with the most classes that no other has is refused first."""
    max_images: Count = 100_000
    """Most guided images that the server draws: for one client, and for all together. A client that asks for more is
    refused; if all together ask for more, the clients that ask for the most are."""
    unknown_classes: Literal["drop", "quarantine"] = "drop"
    """What becomes of a client with a class that the diffusion model cannot draw, or cannot tell from another, or that
    no client named at the question, where clients are merged. `drop`: that class of that client is left out, and client
    and operator are told. `quarantine`: the client is left out."""

    def __post_init__(self) -> None:
        if self.min_clients > self.num_clients:
            raise ValueError(
                f"config key 'min-clients' must be at most 'num-clients', which is {self.num_clients}, "
                f"got {self.min_clients}"
            )
        labels.parse_aliases(self.class_aliases)


@dataclass(frozen=True, config=RULES)
class LocalTrainingConfig:
    """A client's own training. Defaults are ours, chosen on validation images of the embedded digits."""

    architectures: Names = "small_convnext,small_mlp,small_shufflenet_v2,small_resnet"
    """Architectures between commas. Virtual client i takes number i; a real client takes the one in its node config, or
    the first. `package.module:function`, called with `num_classes` and `image_size`, is a builder of your own."""
    initialisation: str = ""
    """Initial weights of the clients: empty for none, `imagenet`, or a file on the client. A client's node config
    wins. General models start from `imagenet` too, if the student does as well."""
    image_size: Annotated[int, Field(ge=8, le=4096)] = 32
    """Pixels on a side of the images that every classifier sees."""
    local_epochs: Count = 20
    """Epochs of a client's training."""
    local_batch_size: Annotated[int, Field(ge=2)] = 32
    """Images in a batch of a client's training; BatchNorm needs two. A lone last image joins the batch before it."""
    local_learning_rate: PositiveFloat = 0.05
    """Peak of a cosine schedule for SGD with momentum 0.9; nets without BatchNorm take AdamW at a fiftieth of it."""
    upload: Literal["own", "student", "both"] = "both"
    """With a warm start, the classifiers that a client uploads. `own`: one of its own architecture. `student`: one of
    `student-architecture`, which can be merged. `both`: its own, and a copy that it trains of `student-architecture`.
    A client's node config wins. In private training `both` means the copy alone."""
    statistics: Literal["global", "class", "class/2", "class/4", "class/8", "class/16"] = "class"
    """Feature statistics in the upload. `global`: of all images together (paper). `class`: of each class with 8 images
    or more (ours). `class/4`: of four clusters of alike images in each class, for clients whose images of one class
    come from unlike sources (ours). Each step multiplies the bytes of the statistics."""

    @property
    def architecture_names(self) -> list[str]:
        """The architectures, without blanks around them."""
        return [name.strip() for name in self.architectures.split(",")]

    @property
    def num_clusters(self) -> int:
        """Clusters into which a class is split for its statistics; 1: a class is taken whole; 0: all classes are."""
        return 0 if self.statistics == "global" else int(self.statistics.partition("/")[2] or 1)


@dataclass(frozen=True, config=RULES)
class DistillationConfig:
    """The aggregated model. Source: paper, Eqs. 11-13; the settings of the optimiser are ours."""

    aggregation: Literal["fine-tuning", "multi-teacher", "specific-teacher", "merge"] = "merge"
    """How the returned model is made. `fine-tuning`: it learns from the images' labels alone; `multi-teacher`: also
    from all clients' classifiers; `specific-teacher`: also from the classifier that guided each image. With a warm
    start and at most 16 clients, these read every augmented view that the student sees. `merge`: the clients' changes
    to the common start are added up (task arithmetic, arXiv 2212.04089)."""
    teacher_weighting: Literal["quality", "uniform"] = "quality"
    """`quality`: a client whose classifier is near chance level by every measure is excluded (ours). `uniform`: every
    client counts."""
    witness: Literal["leave-out", "tell", "off"] = "leave-out"
    """What happens to a client whose labels contradict what the server knows of the classes: it is left out, or the
    operator is told. `off`: clients are not judged (ours)."""
    student_architecture: Text = "small_resnet"
    """Architecture of the returned model, or `package.module:function`, a builder of your own."""
    student_initialisation: str = ""
    """Initial weights of the returned model: empty for none, `imagenet`, `average` of the uploads with its
    architecture, or a safetensors file."""
    student_epochs: Count = 45
    """Epochs over all images that are asked for; a baseline with fewer images takes as many updates."""
    student_batch_size: Annotated[int, Field(ge=2)] = 64
    """Images in a batch of distillation; BatchNorm needs two."""
    student_learning_rate: PositiveFloat = 0.1
    """Peak of a cosine schedule for SGD with momentum 0.9; a student that starts from a general model takes a fifth."""
    temperature: Annotated[float, Field(ge=0.1, le=100)] = 2.0
    """Temperature at which teacher and student are compared."""


@dataclass(frozen=True, config=RULES)
class Config:
    """A whole run."""

    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    """Seed of everything random: the same settings, versions and seed give the same result."""
    clients: ClientsConfig = dataclasses.field(default_factory=ClientsConfig)
    general: GeneralConfig = dataclasses.field(default_factory=GeneralConfig)
    training: LocalTrainingConfig = dataclasses.field(default_factory=LocalTrainingConfig)
    synthesis: SynthesisConfig = dataclasses.field(default_factory=SynthesisConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    simulation: SimulationConfig = dataclasses.field(default_factory=SimulationConfig)
    options: Options = dataclasses.field(default_factory=Options)

    @property
    def builders(self) -> frozenset[str]:
        """Every `package.module:function` that the operator named: what may be imported in this run."""
        named = [*self.training.architecture_names, self.distillation.student_architecture]
        if "crashing-architecture" in faults_by_client(self.simulation).values():
            named.append(CRASHING_ARCHITECTURE)
        return frozenset(name.strip() for name in named if ":" in name)

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> "Config":
        """Flat kebab-case keys to a Config. A key that is set wins over its preset's and its data set's value, and
        these win over the default; a key with the value "default" is not set.

        Raises
        ------
        ConfigError: an unknown key (names the nearest), one of an earlier version, or a value that it does not take.
        """
        given = {key: value for key, value in run_config.items() if value != UNSET}
        former.check(given)
        if unknown := [key for key in given if key not in KEYS]:
            nearest = difflib.get_close_matches(unknown[0], KEYS, n=1, cutoff=0)[0]
            raise ConfigError(
                f"unknown config key '{unknown[0]}'; did you mean '{nearest}'?",
                f"it does not know {len(unknown)} config keys of the run: run the same version of FedLMG on both sides",
            )
        values = DATASETS.get(str(given.get("dataset")), {}) | PRESETS.get(str(given.get("preset")), {})
        if given.get("warm-start", values.get("warm_start")) is False:
            values |= WITHOUT_WARM_START
        values |= {key.replace("-", "_"): value for key, value in given.items()}
        tables: dict[str, Any] = {part: fill(table, _of(table, values)) for part, table in TABLES.items()}
        return fill(cls, _of(cls, values) | tables)

    def to_run_config(self) -> dict[str, Any]:
        """Every key with its value, flat and in kebab-case."""
        parts = [self, *(getattr(self, part) for part in TABLES)]
        return {key(name): getattr(part, name) for part in parts for name in fields_of(type(part))}

    def settings(self) -> dict[str, Any]:
        """`to_run_config` without the options of the command: what decides a run's result."""
        options = {key(name) for name in fields_of(Options)}
        return {name: value for name, value in self.to_run_config().items() if name not in options}


def tell_contradictions(given: Mapping[str, Any]) -> str:
    """A clause for each key that is set to another value than its preset has; empty if there is none."""
    preset = str(given.get("preset"))
    own = {key(name): value for name, value in PRESETS.get(preset, {}).items()}
    return "; ".join(
        f"'{name}' is {given[name]}, as you set it, and not {value}, as preset '{preset}' has it"
        for name, value in own.items()
        if given.get(name, UNSET) not in (UNSET, value)
    )


WITHOUT_WARM_START: dict[str, Any] = {"aggregation": "specific-teacher"}
"""Defaults of other keys where clients share no start, so that nothing can be merged."""
TABLES: dict[str, type] = {
    "clients": ClientsConfig,
    "general": GeneralConfig,
    "training": LocalTrainingConfig,
    "synthesis": SynthesisConfig,
    "distillation": DistillationConfig,
    "simulation": SimulationConfig,
    "options": Options,
}
"""Part of a Config -> its table, in the order in which keys are listed."""
KEYS = [key(name) for table in (Config, *TABLES.values()) for name in fields_of(table)]
"""Every run config key."""


def _of(table: type, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in fields_of(table) if name in values}
