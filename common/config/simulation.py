"""Settings of virtual clients, which real ones ignore: who holds what, and who is broken."""

import re
from dataclasses import dataclass

NUM_CLASSES = 10
"""Of every embedded federation."""
MOST_CLASSES = 1_000_000
"""How many a folder has is known when it is read."""
TURNS = ("0", "90", "180", "270")
"""Degrees that a virtual client's images may be turned by."""
FAULTS = ("random-labels", "nan-weights", "few-epochs")
"""What a virtual client may suffer: it trains on shuffled labels, uploads weights that are not numbers, or trains for
one epoch."""


@dataclass(frozen=True)
class SimulationConfig:
    """Virtual clients. Lists between semicolons are taken in turn: client i has number i, and so on from the start."""

    folders: str = ""
    """Image folders in place of the embedded ones (see `datasets/folders.py`), absolute paths between semicolons; the
    clients with one folder share it, every n-th image each or by `partition`."""
    partition: str = "domain"
    """`domain`: client i has domain i modulo four, clients of one domain share it; `dirichlet`, `shards`: of all."""
    dirichlet_alpha: float = 0.5
    """Concentration: the smaller, the less alike the clients (Hsu et al., 2019)."""
    client_classes: str = ""
    """Numbers of the sorted classes, from 0, that each client knows, as `0-5;3-8;6-9,0`; an empty part: all."""
    client_sizes: str = ""
    """Most training images of a class that each client holds, such as `40;10`; an empty part: all."""
    client_turns: str = ""
    """Degrees, counter-clockwise, that all images of each client are turned by: 0, 90, 180 or 270, such as `90;0`; an
    empty part: 0. So turned, they are of a domain that the embedded diffusion models have not seen."""
    parameter_noise: float = 0.0
    """Gaussian noise on every parameter that a client uploads, as a share of its tensor's standard deviation (ours; the
    paper, Table 7, gives no unit)."""
    faults: str = ""
    """Client index and what it suffers, such as `1:random-labels, 4:nan-weights, 2:few-epochs`."""


FEDERATIONS = {
    "mixed": {
        "num_clients": 6,
        "architectures": ("small_convnext,small_mobilenet_v3,small_shufflenet_v2,small_resnet,small_vit,small_mlp"),
        "local_epochs": 40,
        "client_classes": "0-5;3-8;6-9,0;2,4,6,8;0-9;0-9",
        "faults": "4:nan-weights, 5:random-labels",
    },
    # Broad classes want more images, and the student more updates with them, than digits do.
    "emoji": {"diffusion_model": "emoji", "images_per_class": 60},
}
"""Embedded federations with other defaults than `digits`; a key that is set otherwise wins."""


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
            raise ValueError(f"config key 'client-classes' holds '{part}', which is no {kind} and no range of them")
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
        raise ValueError(f"config key 'client-sizes' holds '{size}', which is no number of images")
    return int(size) if size else None


def quarter_turns_of(simulation: SimulationConfig, index: int) -> int:
    """How often a client's images are turned by 90 degrees, counter-clockwise.

    Raises
    ------
    ValueError: no such angle.
    """
    angle = in_turn(simulation.client_turns, index) or "0"
    if angle not in TURNS:
        raise ValueError(f"config key 'client-turns' holds '{angle}'; it takes {', '.join(TURNS)} degrees")
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
                f"config key 'faults' holds '{part.strip()}'; it wants a client's index and one of "
                f"{', '.join(FAULTS)}, as in '1:random-labels'"
            )
        faults[int(index)] = fault
    return faults


def check(simulation: SimulationConfig) -> None:
    """Raises ValueError, one sentence, unless every key can be read."""
    for index in range(simulation.client_classes.count(";") + 1):
        classes_of(simulation, index, MOST_CLASSES if simulation.folders else None)
    for index in range(simulation.client_sizes.count(";") + 1):
        size_of(simulation, index)
    for index in range(simulation.client_turns.count(";") + 1):
        quarter_turns_of(simulation, index)
    faults_by_client(simulation)
    if simulation.parameter_noise < 0:
        raise ValueError(f"config key 'parameter-noise' is {simulation.parameter_noise}; it must be at least 0")
    if simulation.dirichlet_alpha <= 0:
        raise ValueError(f"config key 'dirichlet-alpha' is {simulation.dirichlet_alpha}; it must be above 0")
