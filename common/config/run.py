"""Every setting of a run: frozen dataclasses, one per stage, filled from Flower's flat run config (kebab-case keys)."""

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from common import labels
from common.config import simulation
from common.config.simulation import FEDERATIONS, SimulationConfig
from common.config.synthesis import PRESETS, SynthesisConfig, over, with_preset


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class FederationConfig:
    """Who takes part."""

    federation: str = "digits"
    """Embedded federation of virtual clients: `digits`, with unlike, broken and poisoned ones `mixed`, or `emoji`;
    empty for clients with folders of their own."""
    class_aliases: str = ""
    """Names that stand for another class, such as `automobile=car, plane=airplane`; case and blanks never matter."""
    num_clients: int = 4
    """Clients expected; the server stops waiting as soon as it has heard from so many."""
    min_clients: int = 2
    """Quorum: with fewer uploads at the deadline the run stops."""
    client_registry: str = ""
    """JSON file of the clients that `fedlmg server` knows: each answers under the name of its key. Empty: whatever name
    a client gives itself."""
    deadline_seconds: float = 3600.0
    """Longest wait for uploads, and again for evaluations, in seconds."""
    max_upload_megabytes: float = 1024.0
    """Largest upload that is taken, in MB (10**6 bytes) of tensors and manifest; clients are told before they send."""


@dataclass(frozen=True)
class LocalTrainingConfig:
    """A client's own training. Source: ours, chosen on the embedded federation's validation images."""

    architectures: str = "small_convnext,small_mlp,small_shufflenet_v2,small_resnet"
    """Comma-separated; virtual client i takes number i, a real one its node config `architecture` or the first. A
    `package.module:function` of `num_classes` and `image_size` stands for a builder of your own."""
    initialisation: str = ""
    """Empty: from scratch; `imagenet`; or a file on the client. A node config's own `initialisation` wins."""
    image_size: int = 32
    """Pixels on a side that every classifier sees."""
    local_epochs: int = 20
    local_batch_size: int = 32
    local_learning_rate: float = 0.05
    """Peak of a cosine schedule, SGD with momentum 0.9 (AdamW at a fiftieth of it for nets without BatchNorm)."""
    statistics_by_class: bool = True
    """Upload feature statistics class by class, of classes with 8 images or more; as many times the bytes as there are
    classes (ours)."""
    statistics_looks: int = 1
    """Into how many groups of alike images a class is split for that, a power of two; for clients whose images of one
    class come from unlike sources. As many times the bytes again; a group has 8 images or more (ours)."""
    max_membership_auc: float = 1.0
    """A client whose model tells its training images from others better than this, by their loss, sends nothing: 0.5 is
    a coin, 1 (never stop) certainty. Its own node config's `max-membership-auc` wins (ours)."""
    dp_epsilon: float = 0.0
    """Budget of differentially private training (DP-SGD by Opacus, BatchNorm replaced by GroupNorm, statistics
    withheld); 0: none. A node config's own `dp-epsilon` wins (ours)."""
    dp_delta: float = 0.0
    """Its delta; 0: a tenth of one over the number of training images."""
    dp_max_grad_norm: float = 1.0
    """Largest norm of one image's gradient."""


@dataclass(frozen=True)
class DistillationConfig:
    """The aggregated model. Source: paper, Eqs. 11-13; optimiser settings ours."""

    aggregation: str = "specific-teacher"
    """`fine-tuning`, `multi-teacher` or `specific-teacher`: the model that goes back to the clients."""
    teacher_weighting: str = "quality"
    """`quality`: a client that is near chance by every measure is not learned from (ours); `uniform`: all are."""
    student_architecture: str = "small_resnet"
    student_initialisation: str = ""
    """Empty: from scratch; `imagenet`; `average`: mean of uploads of the same architecture; or a safetensors file."""
    student_epochs: int = 45
    student_batch_size: int = 64
    student_learning_rate: float = 0.1
    temperature: float = 2.0
    compare: bool = True
    """Also measure every rival (simulation only)."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = 0
    workspace: str = "~/fedlmg/default"
    """Folder on the server (for virtual clients also their cache)."""
    trackers: str = ""
    """Comma-separated experiment trackers that also get the run's events, as `accelerate` names them: `tensorboard`
    (files under the workspace), `mlflow`, `wandb`."""
    federation: FederationConfig = field(default_factory=FederationConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    training: LocalTrainingConfig = field(default_factory=LocalTrainingConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    @property
    def builders(self) -> frozenset[str]:
        """Every `package.module:function` that the operator named: what may be imported in this run."""
        named = [*self.training.architectures.split(","), self.distillation.student_architecture]
        return frozenset(name.strip() for name in named if ":" in name)

    @classmethod
    def from_run_config(cls, run_config: dict[str, Any]) -> "Config":
        """Flat kebab-case keys to a Config; missing keys take their defaults.

        Raises
        ------
        ConfigError: unknown key (names the nearest), or a value of the wrong type or outside its choices.
        """
        known = {key: None for key in cls().to_run_config()}
        for key in run_config:
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
                raise ConfigError(f"unknown config key '{key}'; did you mean '{nearest[0]}'?")
        config = _fill(cls, run_config)
        if changes := FEDERATIONS.get(config.federation.federation):
            parts = ("federation", "simulation", "training", "synthesis")
            config = dataclasses.replace(config, **{part: over(getattr(config, part), changes) for part in parts})
        _check(config)
        return dataclasses.replace(config, synthesis=with_preset(config.synthesis))

    def to_run_config(self) -> dict[str, Any]:
        """The flat kebab-case form: what `pyproject.toml` lists and `run.json` keeps."""
        flat = {}
        for name, value in dataclasses.asdict(self).items():
            for key, leaf in value.items() if isinstance(value, dict) else [(name, value)]:
                flat[key.replace("_", "-")] = leaf
        return flat


def _fill(kind: type, run_config: dict[str, Any]) -> Any:
    values = {}
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            values[name] = _fill(hint, run_config)
        elif (key := name.replace("_", "-")) in run_config:
            values[name] = _convert(key, run_config[key], hint)
    return kind(**values)


def _convert(key: str, value: Any, hint: type) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"config key '{key}' wants {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"config key '{key}' is {value}, which is no number")
    return value


CHOICES = {
    "federation": ("", "digits", *FEDERATIONS),
    "partition": ("domain", "dirichlet", "shards"),
    "statistics-looks": (1, 2, 4, 8, 16),
    "sampler": ("ddim", "ddpm", "dpm-solver++", "lcm"),
    "preset": ("default", *PRESETS),
    "guidance-step": ("scale-free", "raw"),
    "denoiser-passes": (1, 2),
    "guidance-gradient": ("full", "shortcut"),
    "aggregation": ("fine-tuning", "multi-teacher", "specific-teacher"),
    "teacher-weighting": ("quality", "uniform"),
}
AT_LEAST_ONE = (
    *("num-clients", "min-clients", "image-size", "local-epochs", "local-batch-size", "images-per-class"),
    *("synthesis-batch-size", "num-inference-steps", "student-epochs", "student-batch-size"),
)
ABOVE_ZERO = (
    *("deadline-seconds", "max-upload-megabytes", "local-learning-rate", "dp-max-grad-norm"),
    *("student-learning-rate", "temperature"),
)
AT_LEAST_ZERO = (
    *("seed", "dp-epsilon", "noise-editing-steps", "noise-editing-strength"),
    *("classification-weight", "statistics-weight", "guidance-strength"),
)
LARGEST_SEED = 2**63 - 1


def _check(config: Config) -> None:
    flat = config.to_run_config()
    for key, choices in CHOICES.items():
        if flat[key] not in choices:
            raise ConfigError(f"config key '{key}' is {flat[key]!r}; choose one of {', '.join(map(repr, choices))}")
    for key in AT_LEAST_ONE:
        if flat[key] < 1:
            raise ConfigError(f"config key '{key}' is {flat[key]}; it must be at least 1")
    if not 0 <= flat["guidance-start"] <= flat["guidance-stop"] <= 1:
        raise ConfigError("config keys 'guidance-start' and 'guidance-stop' must satisfy 0 <= start <= stop <= 1")
    for key in ABOVE_ZERO:
        if not flat[key] > 0:
            raise ConfigError(f"config key '{key}' is {flat[key]}; it must be above 0")
    for key in AT_LEAST_ZERO:
        if flat[key] < 0:
            raise ConfigError(f"config key '{key}' is {flat[key]}; it must be at least 0")
    if flat["seed"] > LARGEST_SEED:
        raise ConfigError(f"config key 'seed' is {flat['seed']}; it must be at most {LARGEST_SEED}")
    for key in ("min-confidence", "max-membership-auc", "dp-delta"):
        if not 0 <= flat[key] <= 1:
            raise ConfigError(f"config key '{key}' is {flat[key]}; it must be from 0 to 1")
    if flat["min-clients"] > flat["num-clients"]:
        raise ConfigError("config key 'min-clients' must not exceed 'num-clients'")
    try:
        simulation.check(config.simulation)
        labels.parse_aliases(config.federation.class_aliases)
    except ValueError as error:
        raise ConfigError(str(error)) from None
