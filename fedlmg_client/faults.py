"""Faults of virtual clients, which simulate broken and poisoned clients; a client with a folder has no fault."""

from collections.abc import Callable
from dataclasses import replace

import torch

from common.clients.backdoors import BACKDOORS, poison
from common.clients.data import ClientData, virtual_index
from common.config.run import Config, LocalTrainingConfig
from common.config.simulation import CRASHING_ARCHITECTURE, faults_by_client
from common.datasets.labeled_images import LabeledView
from common.models.feature_statistics import batch_norm_moments
from common.upload import Upload

LARGEST_SCALE = 1024.0
"""The largest weight of BatchNorm that `nan-guidance` tries: validation takes ten times as much."""

MANY_CLASSES = 20_000
"""How many classes `many-classes` names."""
UNKNOWN_CLASS = "the unknown"
"""What `unknown-class` calls the client's last class."""


def find_fault(data: ClientData, config: Config) -> str:
    """The client's fault, one of `common.config.simulation.FAULTS`; empty for a sound client."""
    index = virtual_index(data.source, config)
    return "" if index is None else faults_by_client(config.simulation).get(index, "")


def spoil_data(fault: str, data: ClientData, seed: int) -> ClientData:
    """Apply what spoils the images or their labels, in training and validation, but not in the test images."""
    if not (spoilt := _spoil_images(fault, data, seed)):
        return data
    train, validation = spoilt
    return replace(data, train=train, validation=validation, fingerprint=f"{data.fingerprint}/{fault}")


def spoil_class_names(fault: str, data: ClientData) -> ClientData:
    """Apply `unknown-class` or `many-classes`: call the last class by a strange name, or name 20,000 classes. It is for
    what the client tells the server; of the returned model it measures its own classes."""
    if fault == "unknown-class":
        return replace(data, class_names=[*data.class_names[:-1], UNKNOWN_CLASS])
    if fault == "many-classes":
        more = [f"class {number}" for number in range(MANY_CLASSES - len(data.class_names))]
        return replace(data, class_names=[*data.class_names, *more])
    return data


def _spoil_images(fault: str, data: ClientData, seed: int) -> tuple[LabeledView, LabeledView] | None:
    """Training and validation images; None if the fault does not touch them."""
    generator = torch.Generator().manual_seed(seed)
    if fault in ("random-labels", "lying"):
        shuffled = [
            LabeledView(part.images, part.labels[torch.randperm(len(part), generator=generator)])
            for part in (data.train, data.validation)
        ]
        return shuffled[0], shuffled[1]
    if fault in ("rotated-labels", "swapped-labels"):
        order = torch.arange(len(data.class_names)).roll(-1)
        if fault == "swapped-labels":
            order = torch.tensor([1, 0, *range(2, len(order))])
        renamed = [LabeledView(part.images, order[part.labels]) for part in (data.train, data.validation)]
        return renamed[0], renamed[1]
    return (poison(fault, data.train, seed), data.validation) if fault in BACKDOORS else None


def spoil_settings(fault: str, settings: LocalTrainingConfig) -> LocalTrainingConfig:
    """Apply `few-epochs`: train for one epoch."""
    return replace(settings, local_epochs=1) if fault == "few-epochs" else settings


def spoil_architecture(fault: str, name: str) -> str:
    """Apply `crashing-architecture`: a net that raises where more images are guided than validation guides."""
    return CRASHING_ARCHITECTURE if fault == "crashing-architecture" else name


def add_noise(upload: Upload, index: int | None, config: Config) -> Upload:
    """Add `parameter-noise` to a virtual client's weights; running moments of BatchNorm stay as they are."""
    share = config.simulation.parameter_noise
    if not share or index is None:
        return upload
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + index)

    def noisy(name: str, tensor: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        takes_noise = tensor.is_floating_point() and tensor.numel() > 1 and ".running_" not in name
        return (tensor + share * tensor.float().std() * noise).to(tensor.dtype) if takes_noise else tensor

    return _change(upload, noisy)


def spoil_upload(fault: str, upload: Upload, config: Config) -> Upload:
    """Apply `nan-weights`: every weight is NaN, with a checksum that matches. Or apply `nan-guidance`. Or
    apply `lying`: a validation accuracy of 1.

    Raises
    ------
    ValueError: `nan-guidance`, and the net has no BatchNorm.
    """
    if fault == "nan-guidance":
        return _blow_up(replace(upload, builders=config.builders))
    if fault == "lying":
        training = upload.manifest.training.model_copy(update={"validation_accuracy": 1.0})
        return replace(upload, manifest=upload.manifest.model_copy(update={"training": training}))
    if fault != "nan-weights":
        return upload
    return _change(
        upload, lambda _, tensor: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
    )


@torch.no_grad()
def _blow_up(upload: Upload) -> Upload:
    """Variances of 0, and the largest weights of BatchNorm at which the output on noise is still finite: the moments of
    the layers' inputs are infinite then, and the gradient of their loss is no number."""
    size, layers = upload.preprocess.image_size, batch_norm_moments(upload.classifier())
    if not layers:
        raise ValueError(
            f"the fault 'nan-guidance' needs a net with BatchNorm, but '{upload.manifest.architecture}' has none: give "
            "this client 'small_resnet'"
        )
    noise = upload.preprocess(torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0)))
    weight = LARGEST_SCALE
    while True:
        values = {f"{layer}.running_var": 0.0 for layer in layers} | {f"{layer}.weight": weight for layer in layers}
        blown = {key: torch.full_like(old, values[key]) if key in values else old for key, old in upload.arrays.items()}
        poisoned = upload.with_arrays(blown)
        if poisoned.classifier()(noise).isfinite().all():
            return poisoned
        weight /= 2


def _change(upload: Upload, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Upload:
    """Change each tensor, given its name, of every classifier in the upload."""
    upload = upload.with_arrays({name: change(name, tensor) for name, tensor in upload.arrays.items()})
    if not (said := upload.manifest.student_copy):
        return upload
    return upload.with_student_copy({name: change(name, each) for name, each in upload.student_copy.items()}, said)
