"""What a finished run's models read of their clients' test images once those have changed: drift after training.

The returned model stands beside what a client has without it (`local-all`, `ensemble`) and beside the same student
trained on all real images (`centralised`). For virtual clients only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from torchvision.transforms.v2 import functional

from common.datasets.embedded import digits
from common.datasets.embedded.public_digits import PUBLIC_FONTS
from common.datasets.labeled_images import LabeledImages
from common.storage.atomic import write_bytes, write_json
from fedlmg_server.baselines import centralised, compare
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.distillation.student import train_student
from fedlmg_server.report.markdown import spread, table

NOISE = 0.1
"""Standard deviation of the noise, of 1."""


def noisy(images: torch.Tensor) -> torch.Tensor:
    """The same noise every time."""
    noise = NOISE * 255 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


SHIFTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda images: images,
    "half as bright": lambda images: functional.adjust_brightness(images, 0.5),
    "half the contrast": lambda images: functional.adjust_contrast(images, 0.5),
    "turned by 20 degrees": lambda images: functional.rotate(images, 20),
    "turned by 40 degrees": lambda images: functional.rotate(images, 40),
    "blurred": lambda images: functional.gaussian_blur(images, [5, 5], [1.0, 1.0]),
    "noise": noisy,
    "colours inverted": functional.invert,
}
"""Name -> what happens to images uint8 (N, 3, h, w)."""

PRINTED = {"printed alone": digits.CLIENT_FONTS, "printed alone, new fonts": PUBLIC_FONTS}
"""Name -> the fonts of the embedded client `printed`; no client has the new ones, the diffusion model has seen them."""


@dataclass(frozen=True)
class Shifted:
    seed: int
    shift: str
    method: str
    per_client: dict[str, float]
    """Accuracy in [0, 1]."""

    @property
    def accuracy(self) -> float:
        return mean(self.per_client.values())


def measure(run: VirtualRun) -> Iterator[Shifted]:
    """One row for each shift and method."""
    pooled, _ = train_student(run, centralised.pool_images(list(run.train.values())))
    models = {compare.returned_method(run): load_model(run), "centralised": pooled}
    for shift, tests in shifted(run.test):
        untrained, _ = compare.measure_untrained(run, tests)
        found = {method: untrained[method].measured for method in ("local-all", "ensemble")}
        found |= {method: run.measure(model, tests) for method, model in models.items()}
        for method, per_client in found.items():
            yield Shifted(run.config.seed, shift, method, per_client)


def shifted(tests: dict[str, LabeledImages]) -> Iterator[tuple[str, dict[str, LabeledImages]]]:
    """Each shift and what it makes of the test images, of all clients or of those whom it can meet."""
    for shift, change in SHIFTS.items():
        yield shift, {client: replace(test, images=change(test.images)) for client, test in tests.items()}
    as_trained = digits.load("printed")["test"].images
    printed = {client: test for client, test in tests.items() if torch.equal(test.images, as_trained)}
    for shift, fonts in PRINTED.items() if printed else ():
        images = digits.load("printed", fonts)["test"].images
        yield shift, {client: replace(test, images=images) for client, test in printed.items()}


def markdown(rows: list[Shifted]) -> str:
    """A line a shift, a column a method: mean accuracy over the clients in %, and its deviation over the seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row.shift, {}).setdefault(row.method, []).append(100 * row.accuracy)
    methods = next(iter(found.values()))
    lines = ([shift, *map(spread, by_method.values())] for shift, by_method in found.items())
    return table(["test images", *methods], lines)


def write(rows: list[Shifted], out: Path) -> None:
    """`drift.json`, every client, and `drift.md`."""
    write_json(out / "drift.json", [{**row.__dict__, "accuracy": row.accuracy} for row in rows])
    write_bytes(out / "drift.md", markdown(rows).encode())
