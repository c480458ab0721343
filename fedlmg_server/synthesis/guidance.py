"""Guidance by one client's classifier: from images to loss, from loss to a gradient.

Two losses: `full_loss` (classification + statistics, for sampling) and `statistics_only` (for noise editing).
Both take int64 (B,): `targets` are the requested classes in the classifier's own numbering, and `clusters` says which
cluster of its class's statistics each image follows (by default the first).
"""

from collections.abc import Callable

import torch

from common.models import feature_statistics
from common.models.feature_statistics import FeatureStatistics
from common.upload import Upload
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.synthesis.losses import classification_loss, statistics_loss

Loss = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, 3, h, w) in [0, 1] to a loss per image (B,)."""

Trace = dict[str, list[torch.Tensor]]
"""Kind of loss -> its mean over the batch at each step, unweighted; 0-dim, left on the device so that nothing waits."""


class ClassifierGuidance:
    """One frozen classifier with its preprocessing and statistics."""

    def __init__(
        self,
        classifier: torch.nn.Module,
        preprocess: PreprocessSpec,
        target_statistics: FeatureStatistics,
        classification_weight: float,
        statistics_weight: float,
        by_class: bool = True,
    ):
        """by_class: each image follows its class's statistics, where the target has them; else those of all classes:
        BatchNorm's running moments, or where there is none the target's, pooled."""
        self.classifier, self.preprocess = classifier, preprocess
        self.classification_weight, self.statistics_weight = classification_weight, statistics_weight
        device = next(classifier.parameters()).device
        if target_statistics and not by_class:
            running = feature_statistics.batch_norm_moments(classifier)
            target_statistics = running or {name: moments.pooled() for name, moments in target_statistics.items()}
        self.target_statistics = {name: moments.to(device) for name, moments in target_statistics.items()}

    @classmethod
    def of_upload(cls, upload: Upload, device: torch.device, **weights) -> "ClassifierGuidance":
        return cls(upload.classifier(device), upload.preprocess, upload.statistics, **weights)

    @property
    def has_statistics(self) -> bool:
        return self.statistics_weight > 0 and bool(self.target_statistics)

    @property
    def num_clusters(self) -> int:
        return max((moments.num_clusters for moments in self.target_statistics.values()), default=1)

    def _forward(
        self, images: torch.Tensor, targets: torch.Tensor, clusters: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits (B, classes), and the statistics loss (B,); None if the client sent no statistics."""
        if not self.has_statistics:
            return self.classifier(self.preprocess(images)), None
        with feature_statistics.recording(self.classifier, self.target_statistics) as recorded:
            logits = self.classifier(self.preprocess(images))
        clusters = torch.zeros_like(targets) if clusters is None else clusters
        wanted = {name: moments.select(targets, clusters) for name, moments in self.target_statistics.items()}
        return logits, statistics_loss(recorded, wanted)

    def full_loss(
        self, targets: torch.Tensor, clusters: torch.Tensor | None = None, trace: Trace | None = None
    ) -> Loss:
        """Classification and statistics, weighted (paper, Eq. 9)."""

        def loss(images: torch.Tensor) -> torch.Tensor:
            logits, moments_loss = self._forward(images, targets, clusters)
            classification = classification_loss(logits, targets)
            if trace is not None:
                _note(trace, "classification", classification)
                _note(trace, "statistics", moments_loss)
            if moments_loss is None:
                return self.classification_weight * classification
            return self.classification_weight * classification + self.statistics_weight * moments_loss

        return loss

    def statistics_only(
        self, targets: torch.Tensor, clusters: torch.Tensor | None = None, trace: Trace | None = None
    ) -> Loss:
        """The statistics loss (paper, Algorithm 1, lines 6-12)."""

        def loss(images: torch.Tensor) -> torch.Tensor:
            moments_loss = self._forward(images, targets, clusters)[1]
            if moments_loss is None:
                raise ValueError("a client that sent no statistics has no statistics loss")
            if trace is not None:
                _note(trace, "noise editing", moments_loss)
            return moments_loss

        return loss


def _note(trace: Trace, kind: str, loss: torch.Tensor | None) -> None:
    if loss is not None:
        trace.setdefault(kind, []).append(loss.detach().mean())


def gradient(loss: torch.Tensor, variable: torch.Tensor) -> torch.Tensor:
    """Gradient of each image's loss in its own slice of `variable` (B, C, H, W): summed, so images do not mix."""
    return torch.autograd.grad(loss.sum(), variable)[0]


def unit(gradients: torch.Tensor) -> torch.Tensor:
    """Each image's gradient at length 1: the step becomes scale-free (ours)."""
    norms = torch.linalg.vector_norm(gradients, dim=(1, 2, 3), keepdim=True)
    return gradients / norms.clamp(min=torch.finfo(gradients.dtype).tiny ** 0.5)


def length(x: torch.Tensor) -> torch.Tensor:
    """Norm of each image, (B, 1, 1, 1)."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
