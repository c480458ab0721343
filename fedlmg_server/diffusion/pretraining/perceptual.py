"""How unlike two images look to a small classifier: a term that keeps an autoencoder's images sharp."""

import torch
import torch.nn.functional as F

from common.models.small import SmallResNet
from common.vision.preprocessing import PreprocessSpec


class Perceptual(torch.nn.Module):
    """Squared distance of the classifier's features, which have length 1 at every pixel: their mean over pixels, summed
    over the stages (Zhang et al., 2018, without their learned weights). The classifier learns nothing here."""

    def __init__(self, classifier: SmallResNet, preprocess: PreprocessSpec):
        super().__init__()
        self.stages = torch.nn.ModuleList([classifier.stem, *classifier.stages])
        self.preprocess = preprocess
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Perceptual":
        """Without effect: BatchNorm's moments stay those of the classifier's training."""
        return super().train(False)

    def forward(self, decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Of two batches (B, 3, h, w) in [-1, 1]; a scalar."""
        both = torch.cat([decoded, images]) / 2 + 0.5
        features, distance = self.preprocess(both), torch.zeros((), device=both.device)
        for stage in self.stages:
            features = stage(features)
            ours, theirs = F.normalize(features, dim=1).chunk(2)
            distance = distance + (ours - theirs).square().sum(1).mean()
        return distance
