"""Feature statistics: channel moments that a classifier's layers saw in training.

Layers with BatchNorm carry them as running moments of their input (paper, Eq. 7; the authors' code hooks the input).
For nets without BatchNorm the client taps the inputs of its LayerNorm and GroupNorm layers, or of its convolutions when
there are none, over its training set, and uploads their moments in the same form (ours). Any net's moments may also be
taken class by class (ours).
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
FEWEST_OF_A_CLASS = 8
"""Images from which a class has moments of its own: those of one image would say too much of it."""


@dataclass(frozen=True)
class Moments:
    """Per-channel mean and (biased) variance, float32 (channels,), or (classes, channels) class by class, or
    (looks, classes, channels) look by look (see `fedlmg_client/clustered_statistics.py`)."""

    mean: torch.Tensor
    variance: torch.Tensor

    @property
    def num_looks(self) -> int:
        return len(self.mean) if self.mean.dim() == 3 else 1

    def of(self, classes: torch.Tensor, looks: torch.Tensor) -> "Moments":
        """What images of these classes and looks, (B,) each, should have: (B, channels), or the moments of all. Looks
        are counted on from the first where there are fewer."""
        if self.mean.dim() == 1:
            return self
        rows = (looks % self.num_looks, classes) if self.mean.dim() == 3 else (classes,)
        return Moments(self.mean[rows], self.variance[rows])

    def to(self, device: torch.device) -> "Moments":
        return Moments(self.mean.to(device), self.variance.to(device))

    def of_all(self) -> "Moments":
        """Those of all classes and looks together, (channels,), as if they had as many images each."""
        if self.mean.dim() == 1:
            return self
        pooled = pool(Moments(self.mean.flatten(0, -2), self.variance.flatten(0, -2)))
        return Moments(pooled.mean[0], pooled.variance[0])


FeatureStatistics = dict[str, Moments]
"""Layer name -> moments of that layer's input."""


def tapped_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose inputs are matched: BatchNorm, else normalisation layers, else convolutions and linears."""
    for kinds in (BATCH_NORM, (nn.LayerNorm, nn.GroupNorm), (nn.Conv2d, nn.Linear)):
        layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
        if layers:
            return layers
    return {}


def channel_dimension(layer: nn.Module, features: torch.Tensor) -> int:
    """Where the channels of a layer's input lie: 1 for maps (B, C, H, W), last for vectors (B, C), tokens (B, T, C) and
    maps (B, h, w, C) before a LayerNorm or a Linear."""
    if isinstance(layer, nn.LayerNorm) and features.shape[-1] == layer.normalized_shape[-1]:
        channels_first = features.dim() == 4 and features.shape[1] == layer.normalized_shape[-1]
        return 1 if channels_first and type(layer) is not nn.LayerNorm else features.dim() - 1
    return features.dim() - 1 if isinstance(layer, nn.Linear) else 1


def per_image_moments(layer: nn.Module, features: torch.Tensor) -> Moments:
    """Moments of each image alone: (B, ...) with C channels to mean and variance, float32 (B, C) each."""
    channels_second = features.float().movedim(channel_dimension(layer, features), 1)
    flat = channels_second.reshape(*channels_second.shape[:2], -1)
    if flat.shape[2] == 1:
        return Moments(flat.mean(2), torch.zeros_like(flat[:, :, 0]))
    return Moments(flat.mean(2), flat.var(2, correction=0))


def pool(moments: Moments) -> Moments:
    """Moments of a batch from those of its images, by the law of total variance: (B, C) to (1, C)."""
    mean = moments.mean.mean(0, keepdim=True)
    variance = moments.variance.mean(0, keepdim=True) + (moments.mean - mean).square().mean(0, keepdim=True)
    return Moments(mean, variance)


@contextmanager
def recording(model: nn.Module, names: Iterable[str]):
    """Record per-image moments of the named layers' inputs during forward passes; hooks are gone afterwards."""
    recorded: dict[str, Moments] = {}
    layers, handles = dict(model.named_modules()), []
    for name in names:

        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
            recorded[name] = per_image_moments(layer, inputs[0])

        handles.append(layers[name].register_forward_pre_hook(hook))
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def of_batch_norm(model: nn.Module) -> FeatureStatistics:
    """The running moments of every BatchNorm layer; empty for a net without them."""
    return {
        name: Moments(layer.running_mean.float().clone(), layer.running_var.float().clone())
        for name, layer in model.named_modules()
        if isinstance(layer, BATCH_NORM) and layer.running_mean is not None
    }


@torch.no_grad()
def gather(model: nn.Module, batches: Iterable[torch.Tensor]) -> FeatureStatistics:
    """Running moments of a BatchNorm net, else tapped moments over `batches` of preprocessed images (B, 3, S, S)."""
    if statistics := of_batch_norm(model):
        return statistics
    model.eval()
    total: dict[str, list[torch.Tensor]] = {}
    count = 0
    with recording(model, tapped_layers(model)) as recorded:
        for images in batches:
            model(images)
            count += len(images)
            for name, moments in recorded.items():
                sums = (moments.mean.sum(0), (moments.variance + moments.mean.square()).sum(0))
                total[name] = (
                    [old + new for old, new in zip(total[name], sums, strict=True)] if name in total else [*sums]
                )
    statistics = {}
    for name, (first, second) in total.items():
        mean = first / count
        statistics[name] = Moments(mean.cpu(), (second / count - mean.square()).clamp(min=0).cpu())
    return statistics


@torch.no_grad()
def gather_by_class(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], num_classes: int
) -> FeatureStatistics:
    """Moments of each class's images, (classes, channels), over `batches` of preprocessed images and labels (B,).

    A class of fewer than `FEWEST_OF_A_CLASS` images has the moments of all others, from which nothing of it can be
    taken off; where no class has as many, those of all images. Any net, with BatchNorm or without (ours).
    """
    model.eval()
    total: dict[str, list[torch.Tensor]] = {}
    counts = torch.zeros(num_classes)
    with recording(model, tapped_layers(model)) as recorded:
        for images, labels in batches:
            model(images)
            member = torch.nn.functional.one_hot(labels, num_classes).float().T.to(images.device)
            counts += member.sum(1).cpu()
            for name, moments in recorded.items():
                sums = (member @ moments.mean, member @ (moments.variance + moments.mean.square()))
                total[name] = [old + new.cpu() for old, new in zip(total.get(name, (0, 0)), sums, strict=True)]
    return {name: _by_class(first, second, counts) for name, (first, second) in total.items()}


def _by_class(first: torch.Tensor, second: torch.Tensor, counts: torch.Tensor) -> Moments:
    """Sums of means and of squares, (classes, channels), to moments."""
    few = counts < FEWEST_OF_A_CLASS
    many = torch.ones_like(few) if few.all() else ~few
    counts = counts.where(~few, counts[many].sum())[:, None]
    mean, square = (torch.where(few[:, None], sums[many].sum(0), sums) / counts for sums in (first, second))
    return Moments(mean, (square - mean.square()).clamp(min=0))


def to_tensors(statistics: FeatureStatistics) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{kind}": getattr(moments, kind)
        for name, moments in statistics.items()
        for kind in ("mean", "variance")
    }


def from_tensors(tensors: dict[str, torch.Tensor]) -> FeatureStatistics:
    """
    Raises
    ------
    ValueError: a mean without its variance, or anything else.
    """
    names = [key.removesuffix(".mean") for key in tensors if key.endswith(".mean")]
    if tensors.keys() != {f"{name}.{kind}" for name in names for kind in ("mean", "variance")}:
        raise ValueError("statistics are not pairs of a '.mean' and a '.variance'")
    return {name: Moments(tensors[f"{name}.mean"], tensors[f"{name}.variance"]) for name in names}
