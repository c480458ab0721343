"""Settings of virtual clients, which real clients and real runs ignore: who holds what, and who is broken."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from common.config.fields import RULES
from common.config.node import PrivacyConfig

NUM_CLASSES = 10
"""Of every embedded data set."""
MOST_CLASSES = 1_000_000
"""How many a folder has is known when it is read."""
TURNS = ("0", "90", "180", "270")
"""Degrees by which the images of a virtual client may be turned."""
FAULTS = {
    "random-labels": "trains on shuffled labels",
    "lying": "trains on shuffled labels, and says that its validation accuracy is perfect",
    "rotated-labels": "calls every class by the next one's name",
    "swapped-labels": "calls its first two classes by each other's names",
    "few-epochs": "trains for one epoch",
    "nan-weights": "uploads weights that are not numbers",
    "nan-guidance": "uploads weights, of a net with BatchNorm, that make guidance infinite",
    "crashing-architecture": "has a net that raises in the server's workers",
    "unknown-class": "calls its last class by a name that no diffusion model knows",
    "many-classes": "names 20,000 classes",
    "badnets": "learns a backdoor: a patch in a corner",
    "blended": "learns a backdoor: a faint pattern over the whole image",
}
"""What a virtual client may suffer -> what it does."""
CRASHING_ARCHITECTURE = "common.models.crashing:build"
"""A builder; server and clients trust it where a client has that fault."""


@dataclass(frozen=True, config=RULES)
class SimulationConfig(PrivacyConfig):
    """Virtual clients. A list between semicolons is taken in turn: client i has part number i, and so on from the
    start. The keys of `PrivacyConfig` hold here for every virtual client."""

    dataset: Literal["", "digits", "mixed", "emoji"] = "digits"
    """Embedded data set of the virtual clients. `mixed` is `digits` with unlike, broken and poisoned clients. Empty
    says that clients have folders of their own."""
    folders: str = ""
    """Image folders in place of an embedded data set: absolute paths between semicolons. Clients with the same folder
    share it, every n-th image each or as `partition` says."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each class of `folders` that is for testing, drawn by `seed` whatever splits the folders have; an eighth
    of the others are for validation. So each seed measures a small federation on another split. 0: the folders' own."""
    partition: Literal["domain", "dirichlet", "shards"] = "domain"
    """How images are shared out. `domain`: client i has the images of domain i modulo four. `dirichlet` and `shards`:
    all domains are mixed, and each client has more of some classes than of others."""
    dirichlet_alpha: PositiveFloat = 0.5
    """Concentration of the Dirichlet distribution: the smaller, the more the clients differ (Hsu et al., 2019)."""
    client_classes: str = ""
    """Numbers of the sorted classes, from 0, that each client knows, such as `0-5;3-8;6-9,0`. An empty part means all
    classes."""
    client_sizes: str = ""
    """Most training images of a class that each client holds, such as `40;10`. An empty part means all images."""
    client_turns: str = ""
    """Degrees by which all images of a client are turned, counter-clockwise: 0, 90, 180 or 270, such as `90;0`. An
    embedded diffusion model has not seen turned images."""
    parameter_noise: NonNegativeFloat = 0.0
    """Gaussian noise on every parameter that a client uploads, as a share of its tensor's standard deviation (ours; the
    paper, Table 7, gives no unit)."""
    faults: str = ""
    """Number of a client and what it suffers, such as `1:random-labels, 4:nan-weights, 2:few-epochs`."""

    def __post_init__(self) -> None:
        for index in range(self.client_classes.count(";") + 1):
            classes_of(self, index, MOST_CLASSES if self.folders else None)
        for index in range(self.client_sizes.count(";") + 1):
            size_of(self, index)
        for index in range(self.client_turns.count(";") + 1):
            quarter_turns_of(self, index)
        faults_by_client(self)


DATASETS: dict[str, dict[str, Any]] = {
    "mixed": {
        "num_clients": 6,
        "architectures": "small_convnext,small_mobilenet_v3,small_shufflenet_v2,small_resnet,small_vit,small_mlp",
        "local_epochs": 40,
        "client_classes": "0-5;3-8;6-9,0;2,4,6,8;0-9;0-9",
        "faults": "4:nan-weights, 5:random-labels",
    },
    # Broad classes want more images, and the student more updates with them, than digits do.
    "emoji": {"diffusion_model": "emoji", "images_per_class": 60},
}
"""Data sets with other defaults than `digits`; a key that is set wins."""


def in_turn(text: str, index: int) -> str:
    """The part for client `index` of a list between semicolons."""
    parts = text.split(";")
    return parts[index % len(parts)].strip()


def classes_of(simulation: SimulationConfig, index: int, num_classes: int | None = None) -> list[int]:
    """Sorted class indices that a client knows; `num_classes` of its folder, or None: of the embedded ones.

    Raises
    ------
    ValueError: not of the form `0-5,7`.
    """
    found: set[int] = set()
    for part in filter(None, in_turn(simulation.client_classes, index).replace(" ", "").split(",")):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not numbers or numbers[-1] >= (num_classes or NUM_CLASSES):
            kind = f"class index below {num_classes or NUM_CLASSES}"
            raise ValueError(f"config key 'client-classes' must hold a {kind}, or a range of them, got '{part}'")
        found |= set(numbers)
    return sorted(found) or list(range(num_classes or NUM_CLASSES))


def size_of(simulation: SimulationConfig, index: int) -> int | None:
    """Most training images of a class that a client holds; None: all.

    Raises
    ------
    ValueError: no whole number above 0.
    """
    size = in_turn(simulation.client_sizes, index)
    if size and not (size.isdecimal() and int(size)):
        raise ValueError(f"config key 'client-sizes' must hold numbers of images between semicolons, got '{size}'")
    return int(size) if size else None


def quarter_turns_of(simulation: SimulationConfig, index: int) -> int:
    """How often a client's images are turned by 90 degrees, counter-clockwise.

    Raises
    ------
    ValueError: no such angle.
    """
    angle = in_turn(simulation.client_turns, index) or "0"
    if angle not in TURNS:
        raise ValueError(f"config key 'client-turns' must hold {', '.join(TURNS)} between semicolons, got '{angle}'")
    return TURNS.index(angle)


def faults_by_client(simulation: SimulationConfig) -> dict[int, str]:
    """Client index -> one of `FAULTS`.

    Raises
    ------
    ValueError: not of that form, or no such fault.
    """
    faults = {}
    for part in filter(str.strip, simulation.faults.split(",")):
        index, _, fault = (text.strip() for text in part.partition(":"))
        if not index.isdecimal() or fault not in FAULTS:
            raise ValueError(
                f"config key 'faults' must hold a client's number and one of {', '.join(FAULTS)}, such as "
                f"'1:random-labels', got '{part.strip()}'"
            )
        faults[int(index)] = fault
    return faults
