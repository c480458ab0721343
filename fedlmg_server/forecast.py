"""What a run will need, from its config alone: images, hours, disk and memory, and what of it this machine lacks.

Guided images alone are counted: general images and baselines come on top of them.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open

from common.config import Config, ConfigError
from common.devices import count_workers, default_device, measure_free_memory, reduced_precision
from common.models import architectures, feature_statistics
from common.upload import WIRE_BYTES
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.diffusion import location
from fedlmg_server.diffusion.description import Description, describe
from fedlmg_server.diffusion.vocabulary import open_vocabulary
from fedlmg_server.distillation.synthetic_set import MOST_IN_MEMORY
from fedlmg_server.preflight import check_config, virtual_classes
from fedlmg_server.synthesis.estimate import tell_processes, tell_time, time_images

PROBE_CLASS = "class"
"""Stands for a class's name where the config names none."""


@dataclass(frozen=True)
class Need:
    """Something that a run needs, and how much of it there is."""

    what: str
    needed: float
    available: float
    remedy: str
    unit: str = " GB"
    state: str = "free"

    @property
    def share(self) -> float:
        """Above 1: it does not fit."""
        return self.needed / max(self.available, 1e-9)

    def clause(self) -> str:
        return (
            f"{self.what}: {_show(self.needed)}{self.unit} of {_show(self.available)}{self.unit} that are {self.state}"
        )


@dataclass(frozen=True)
class Forecast:
    num_clients: int
    num_images: int
    per_class: int
    side: int
    """Pixels of a side of an image."""
    device: str
    processes: int
    needs: tuple[Need, ...]
    seconds: float | None
    """For one image by one process; None: not known."""
    model: str

    def sentences(self) -> list[str]:
        """The forecast, a line each; the last one names what does not fit."""
        lines = [
            f"{self.num_images} guided images of {self.side} pixels: {self.per_class} of every class that each of "
            f"{self.num_clients} clients holds",
            self._tell_time(),
            *(need.clause() for need in self.needs),
        ]
        if missing := [need for need in self.needs if need.share > 1]:
            worst = max(missing, key=lambda need: need.share)
            lines += [f"It will not fit, and the largest need is {worst.clause()}; {worst.remedy}"]
        return lines

    def _tell_time(self) -> str:
        kind = "CPU" if self.device == "cpu" else "GPU"
        if self.seconds is None:
            return (
                f"{kind} time: not known, as the weights of '{self.model}' are not on this machine: download them "
                "first, or give `--seconds-per-image`"
            )
        total = self.num_images * self.seconds
        by_all = f"{tell_time(total / self.processes)} on {tell_processes(self.processes)}"
        return f"{kind} time: about {tell_time(total)}, or {by_all}"


def forecast(config: Config, classes: int | None = None, seconds: float | None = None) -> Forecast:
    """
    Parameters
    ----------
    classes: that each client holds; None: as the virtual clients of the config do.
    seconds: for one image by one process; None: measured on this machine, if the diffusion model's weights are here.

    Raises
    ------
    ConfigError: the config cannot be run, or does not tell how many classes there are.
    """
    check_config(config)
    held, num_classes = _count_classes(config, classes)
    synthesis, device = config.synthesis, default_device()
    images = [count * synthesis.images_per_class for count in held]
    num_batches = sum(math.ceil(count / synthesis.synthesis_batch_size) for count in images)
    processes = count_workers(num_batches)
    description = describe(synthesis.diffusion_model, synthesis.diffusion_size)
    weights = _find_weights(description)
    if seconds is None and weights:
        seconds = _measure_seconds(config, device, num_classes)
    needs = [
        _need_disk(config, sum(images), description.pixels, num_classes),
        Need(
            "'max-images'",
            sum(images),
            config.clients.max_images,
            "raise it, or lower 'images-per-class'",
            "",
            "allowed",
        ),
    ]
    if weights:
        # On a processor, each process holds the model in float32.
        copies, each = (processes, 4) if device.type == "cpu" else (1, reduced_precision(device).itemsize)
        size = copies * each * sum(_count_numbers(file) for part in weights for file in part) / 1e9
        free = measure_free_memory(device) / 1e9
        needs += [Need("memory for weights", size, free, "take a smaller 'diffusion-model', or a larger machine")]
    return Forecast(
        num_clients=len(held),
        num_images=sum(images),
        per_class=synthesis.images_per_class,
        side=description.pixels,
        device=device.type,
        processes=processes,
        needs=tuple(needs),
        seconds=seconds,
        model=synthesis.diffusion_model,
    )


def _count_classes(config: Config, classes: int | None) -> tuple[list[int], int]:
    """How many classes each client holds, and how many there are in all, at least."""
    if classes is not None:
        return [classes] * config.clients.num_clients, classes
    if not (config.simulation.dataset or config.simulation.folders):
        raise ConfigError("the config does not tell how many classes the clients hold: give `--classes`")
    spaces = virtual_classes(config).values()
    return [len(names) for names in spaces], len({name for names in spaces for name in names})


def _need_disk(config: Config, num_images: int, side: int, num_classes: int) -> Need:
    """Images as pixels, for PNG files are smaller; the file of the student's size, if there is one; the uploads."""
    of_student = 3 * num_images * config.training.image_size**2
    folder = Path(config.options.workspace).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    parts = [
        3 * num_images * side**2,
        of_student if of_student > MOST_IN_MEMORY else 0,
        _upload_bytes(config, num_classes),
    ]
    free = shutil.disk_usage(folder).free / 1e9
    remedy = f"make room in {folder}, set 'workspace' to a larger disk, or lower 'images-per-class'"
    return Need("disk", sum(parts) / 1e9, free, remedy)


def _upload_bytes(config: Config, num_classes: int) -> int:
    names = config.training.architecture_names
    sent = [names[index % len(names)] for index in range(config.clients.num_clients)]
    if config.general.warm_start and config.training.upload != "own":
        sent += [config.distillation.student_architecture] * config.clients.num_clients
    sizes = {name: _count_weights(config, name, num_classes) for name in set(sent)}
    return WIRE_BYTES * sum(sizes[name] for name in sent)


def _count_weights(config: Config, name: str, num_classes: int) -> int:
    with init_empty_weights():
        net = architectures.build(name, num_classes, config.training.image_size, config.builders)
    return sum(tensor.numel() for tensor in net.state_dict().values())


def _find_weights(description: Description) -> list[list[Path]]:
    """The files of weights of each part that has any; empty if they are not all on this machine."""
    repository, revision = location.split_revision(description.source)
    folder = Path(repository)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        except Exception:  # Whatever the library raises: they are not here.
            return []
    parts = [name for name in description.parts if name in (description.denoiser_part, "vae")]
    found = [sorted((folder / name).glob("*.safetensors")) for name in parts]
    read = [name for name in description.text_parts if name.startswith("text_encoder")]
    # A part may lie there twice, plain and in half precision: the plain files are opened.
    plain = [[file for file in files if ".fp16" not in file.name] or files for files in found]
    return plain if all(plain) and all([*(folder / name).glob("*.safetensors")] for name in read) else []


def _count_numbers(file: Path) -> int:
    with safe_open(file, "pt") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118


def _measure_seconds(config: Config, device: torch.device, num_classes: int) -> float:
    """Seconds for one image, guided by a classifier that has learned nothing."""
    from fedlmg_server.diffusion import opening  # Diffusers takes seconds to import.
    from fedlmg_server.synthesis.guidance import ClassifierGuidance

    if device.type == "cpu":
        torch.set_num_threads(1)
    name, size = config.training.architecture_names[0], config.training.image_size
    net = architectures.build(name, num_classes, size, config.builders).eval().requires_grad_(False).to(device)
    preprocess, synthesis = PreprocessSpec.of(size), config.synthesis
    with torch.no_grad():
        statistics = feature_statistics.gather(net, [torch.zeros(2, 3, size, size, device=device)])
    guidance = ClassifierGuidance(
        net, preprocess, statistics, synthesis.classification_weight, synthesis.statistics_weight
    )
    known = open_vocabulary(synthesis).names or (PROBE_CLASS,)
    backend = opening.load_backend(synthesis, device)
    return time_images(backend, guidance, config, list(known[:num_classes]))[0]


def _show(number: float) -> str:
    return f"{number:.0f}" if number >= 100 or number == int(number) else f"{number:.2g}"
