"""Feature statistics: the channel moments of a classifier's layer inputs on its training images.

A BatchNorm layer stores them: its running moments (paper, Eq. 7; the authors' code hooks the layer's input). A net
without BatchNorm does not. There the client records the inputs of its LayerNorm and GroupNorm layers, or of its
convolutions and linear layers if it has neither, over its training set, and uploads moments of the same form (ours).
The moments of any net can also be taken for each class alone (ours).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
FEWEST_OF_A_CLASS = 8
"""A class with fewer images gets no moments of its own: moments of very few images would reveal those images."""


@dataclass(frozen=True)
class Moments:
    """Mean and (biased) variance of each channel, float32, both of one shape.

    (channels,) over all images, (classes, channels) for each class, or (clusters, classes, channels) for each cluster
    of each class (see `fedlmg_client/clustered_statistics.py`).
    """

    mean: torch.Tensor
    variance: torch.Tensor

    @property
    def num_clusters(self) -> int:
        """Clusters that each class has; 1 where the moments are not taken by cluster."""
        return len(self.mean) if self.mean.dim() == 3 else 1

    def select(self, classes: torch.Tensor, clusters: torch.Tensor) -> "Moments":
        """The target moments of B images, given their classes and clusters, int64 (B,) each: (B, channels).

        Moments over all images, (channels,), are returned as they are. A cluster number beyond the last starts again
        at the first.
        """
        if self.mean.dim() == 1:
            return self
        rows = (clusters % self.num_clusters, classes) if self.mean.dim() == 3 else (classes,)
        return Moments(self.mean[rows], self.variance[rows])

    def of_classes(self, classes: torch.Tensor) -> "Moments":
        """The moments of some classes alone, int64 (classes,); moments over all images are returned as they are."""
        if self.mean.dim() == 1:
            return self
        return Moments(self.mean.index_select(-2, classes), self.variance.index_select(-2, classes))

    def to(self, device: torch.device) -> "Moments":
        """The moments on another device."""
        return Moments(self.mean.to(device), self.variance.to(device))

    def pooled(self) -> "Moments":
        """The moments of all classes and clusters together, (channels,), as if each had the same number of images."""
        if self.mean.dim() == 1:
            return self
        pooled = pool(Moments(self.mean.flatten(0, -2), self.variance.flatten(0, -2)))
        return Moments(pooled.mean[0], pooled.variance[0])


FeatureStatistics = dict[str, Moments]
"""Layer name -> moments of that layer's input."""


def tapped_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose inputs have moments: BatchNorm, else LayerNorm and GroupNorm, else convolutions and linears."""
    for kinds in (BATCH_NORM, (nn.LayerNorm, nn.GroupNorm), (nn.Conv2d, nn.Linear)):
        if any(isinstance(module, kinds) for module in model.modules()):
            return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    return {}


def channel_dimension(layer: nn.Module, features: torch.Tensor) -> int:
    """The index of the channel dimension in a layer's input.

    It is 1 for maps (B, C, H, W), and the last one for vectors (B, C), for tokens (B, T, C), and for maps (B, h, w, C)
    that enter a LayerNorm or a Linear.
    """
    if isinstance(layer, nn.LayerNorm) and features.shape[-1] == layer.normalized_shape[-1]:
        channels_first = features.dim() == 4 and features.shape[1] == layer.normalized_shape[-1]
        return 1 if channels_first and type(layer) is not nn.LayerNorm else features.dim() - 1
    return features.dim() - 1 if isinstance(layer, nn.Linear) else 1


def per_image_moments(layer: nn.Module, features: torch.Tensor) -> Moments:
    """The moments of each image alone: from features (B, ...) with C channels to float32 (B, C)."""
    channels_second = features.float().movedim(channel_dimension(layer, features), 1)
    flat = channels_second.reshape(*channels_second.shape[:2], -1)
    if flat.shape[2] == 1:
        return Moments(flat.mean(2), torch.zeros_like(flat[:, :, 0]))
    return Moments(flat.mean(2), flat.var(2, correction=0))


def pool(moments: Moments) -> Moments:
    """The moments of a batch from those of its images, by the law of total variance: from (B, C) to (1, C)."""
    mean = moments.mean.mean(0, keepdim=True)
    variance = moments.variance.mean(0, keepdim=True) + (moments.mean - mean).square().mean(0, keepdim=True)
    return Moments(mean, variance)


@contextmanager
def recording(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Moments]]:
    """Record the per-image moments of the named layers' inputs in every forward pass; remove the hooks at the end.

    Yields a dictionary from layer name to `Moments` (B, C), which the next forward pass overwrites.
    """
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


def batch_norm_moments(model: nn.Module) -> FeatureStatistics:
    """The running moments of every BatchNorm layer; empty for a net without BatchNorm layers."""
    return {
        name: Moments(layer.running_mean.float().clone(), layer.running_var.float().clone())
        for name, layer in model.named_modules()
        if isinstance(layer, BATCH_NORM) and layer.running_mean is not None and layer.running_var is not None
    }


@torch.no_grad()
def gather(model: nn.Module, batches: Iterable[torch.Tensor]) -> FeatureStatistics:
    """The moments of all images together, (channels,) for each layer.

    A net with BatchNorm gives its running moments. Any other net reads `batches` of preprocessed images (B, 3, S, S).
    """
    if statistics := batch_norm_moments(model):
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
    """The moments of each class's images, (classes, channels) for each layer, of any net (ours).

    A class of fewer than `FEWEST_OF_A_CLASS` images gets the pooled moments of the larger classes, which reveal nothing
    about the small one. If every class is that small, each gets the moments of all images.

    Parameters
    ----------
    batches: preprocessed images (B, 3, S, S) with their labels, int64 (B,).
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
                before = total.get(name, [torch.zeros(()), torch.zeros(())])
                total[name] = [old + new.cpu() for old, new in zip(before, sums, strict=True)]
    return {name: _by_class(first, second, counts) for name, (first, second) in total.items()}


def _by_class(first: torch.Tensor, second: torch.Tensor, counts: torch.Tensor) -> Moments:
    """The moments of each class, from the sums of its images' means and mean squares, (classes, channels) each."""
    few = counts < FEWEST_OF_A_CLASS
    many = torch.ones_like(few) if few.all() else ~few
    counts = counts.where(~few, counts[many].sum())[:, None]
    mean, square = (torch.where(few[:, None], sums[many].sum(0), sums) / counts for sums in (first, second))
    return Moments(mean, (square - mean.square()).clamp(min=0))


def to_tensors(statistics: FeatureStatistics) -> dict[str, torch.Tensor]:
    """The statistics as named tensors, `LAYER.mean` and `LAYER.variance`, for a safetensors file."""
    return {
        f"{name}.{kind}": getattr(moments, kind)
        for name, moments in statistics.items()
        for kind in ("mean", "variance")
    }


def from_tensors(tensors: dict[str, torch.Tensor]) -> FeatureStatistics:
    """Undo `to_tensors`.

    Raises
    ------
    ValueError: the names are not pairs of `LAYER.mean` and `LAYER.variance`.
    """
    names = [key.removesuffix(".mean") for key in tensors if key.endswith(".mean")]
    if tensors.keys() != {f"{name}.{kind}" for name in names for kind in ("mean", "variance")}:
        raise ValueError("the statistics must be pairs of tensors 'LAYER.mean' and 'LAYER.variance', and are not")
    return {name: Moments(tensors[f"{name}.mean"], tensors[f"{name}.variance"]) for name in names}
