"""The evaluation classifier: trained on real images, it reads generated ones and measures how far they are off.

Its last features take the place of Inception's, which were learned from photographs and must be downloaded.
"""

import warnings
from dataclasses import dataclass

import torch
from torchmetrics.image.kid import KernelInceptionDistance

from common.config.run import DistillationConfig
from common.models.small import SmallResNet
from common.vision.metrics import predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import trainer
from fedlmg_server.trainer import TrainingSet

TRAINING = DistillationConfig(student_batch_size=128, student_learning_rate=0.2)
EPOCHS = 12
BATCH_SIZE = 256
KID_SUBSET, KID_SUBSETS = 500, 20
NEAREST = 5
"""Neighbours that make an image's surroundings (Naeem et al., 2020)."""


@dataclass(frozen=True)
class EvaluationClassifier:
    classifier: SmallResNet
    preprocess: PreprocessSpec

    def reads(self, images: torch.Tensor) -> torch.Tensor:
        """Class probabilities float32 (N, classes) of images uint8 (N, 3, h, w)."""
        return predict(self.classifier, self.preprocess, images)

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the head reads: float32 (N, channels) of images uint8 (N, 3, h, w)."""
        net = self.classifier
        net.eval()
        parts = (net.stages(net.stem(self.preprocess(part.float() / 255))) for part in images.split(BATCH_SIZE))
        return torch.cat([part.mean((2, 3)) for part in parts])


def train(
    real: TrainingSet, num_classes: int, seed: int, epochs: int = EPOCHS, looks: str = "digits"
) -> EvaluationClassifier:
    """On real images of one size, whose labels index the classes; `looks`: profile by which their look is varied."""
    torch.manual_seed(seed)
    classifier = SmallResNet(num_classes)
    preprocess = PreprocessSpec(real.images.shape[-1])
    updates = max(1, epochs * len(real.images) // TRAINING.student_batch_size)
    trainer.train(classifier, real, preprocess, TRAINING, seed, updates, looks=looks)
    return EvaluationClassifier(classifier, preprocess)


def kernel_distance(real: torch.Tensor, generated: torch.Tensor) -> tuple[float, float]:
    """KID (Binkowski et al., 2018) between features (R, channels) and (D, channels), mean and deviation over subsets.

    It is unbiased: around 0 where both sets are of one kind.
    """
    subset = min(KID_SUBSET, len(real), len(generated))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*extracted features in buffer")
        kid = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=KID_SUBSETS, subset_size=subset)
    kid.update(real, real=True)
    kid.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, deviation = kid.compute()
    return mean.item(), deviation.item()


@dataclass(frozen=True)
class Overlap:
    """How two sets of images share their surroundings in feature space."""

    precision: float
    """Share of the generated images in the surroundings of any real one (Kynkaanniemi et al., 2019), in [0, 1]."""
    recall: float
    """Share of the real images in the surroundings of any generated one, in [0, 1]."""
    density: float
    """Number of real images in whose surroundings a generated one lies, over `NEAREST` (Naeem et al., 2020).
    Real images have 1."""
    coverage: float
    """Share of the real images with a generated one in their surroundings, in [0, 1]."""


def overlap(real: torch.Tensor, generated: torch.Tensor, nearest: int = NEAREST) -> Overlap:
    """Of features float (R, channels) and (D, channels), more than `nearest` of each.

    An image's surroundings reach to its `nearest`-th neighbour among its own kind.
    """
    distances = torch.cdist(real.double(), generated.double())
    around_real, around_drawn = (_radius(each.double(), nearest) for each in (real, generated))
    inside = distances < around_real[:, None]
    return Overlap(
        precision=inside.any(0).double().mean().item(),
        recall=(distances < around_drawn[None]).any(1).double().mean().item(),
        density=(inside.sum(0).double() / nearest).mean().item(),
        coverage=inside.any(1).double().mean().item(),
    )


def _radius(features: torch.Tensor, nearest: int) -> torch.Tensor:
    """Distance of each row to its `nearest`-th neighbour: (N,). The nearest of all is the row itself."""
    return torch.cdist(features, features).kthvalue(nearest + 1, dim=1).values
