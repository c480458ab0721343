"""Fine-tuning from a general model: own images beside replayed general ones, so that little of it is forgotten (ours).

It serves the upload, the copy of the student's architecture, and personal models.
"""

import hashlib
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from common.models import optimizers
from common.start import Start
from common.vision import looks
from common.vision.preprocessing import PreprocessSpec

REPLAY_BATCH = 8
"""General images in a batch, beside the client's own: with 32, the merge and personal models are no better."""
SGD_LEARNING_RATE = 0.02
"""Peak, for nets with BatchNorm; from scratch it is more than twice as high."""
ADAMW_LEARNING_RATE = 2e-3
"""Peak, for nets without BatchNorm."""
WARMUP_SHARE = 0.05
"""Of the steps of every training on a client: the learning rate rises in them."""


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD for nets with BatchNorm, AdamW for others, at the peak of the learning rate."""
    return optimizers.make_optimizer(model, SGD_LEARNING_RATE, ADAMW_LEARNING_RATE)


@dataclass(frozen=True)
class Replay:
    """General images that are shown beside the client's own."""

    images: torch.Tensor = field(repr=False)
    """uint8 (N, 3, S, S), N at least 1."""
    targets: torch.Tensor = field(repr=False)
    """Labels int64 (N,), or probabilities float32 (N, classes)."""
    looks: str
    """Profile by which they are varied (see `common/vision/looks.py`)."""

    @classmethod
    def of_start(cls, start: Start, device: torch.device) -> "Replay | None":
        """A start's replay images with their labels; None if it has none."""
        if not len(start.replay):
            return None
        images = start.preprocess.resize(start.replay.images)
        return cls(images.to(device), start.replay.labels.to(device), start.looks)

    def draw(self, preprocess: PreprocessSpec, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A random batch: inputs float32 (REPLAY_BATCH, 3, S, S), normalised, and their targets."""
        rows = torch.randint(0, len(self.images), (REPLAY_BATCH,), generator=generator).to(self.images.device)
        varied = looks.vary(self.images[rows].float() / 255, self.looks, generator)
        return preprocess.normalize(varied), self.targets[rows]


def add_replay(
    inputs: torch.Tensor,  # (B, 3, S, S), normalised
    labels: torch.Tensor,  # int64 (B,)
    replay: Replay | None,
    preprocess: PreprocessSpec,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Own images and then as many replayed ones as `REPLAY_BATCH`, for one forward pass, with their targets.

    The targets are labels, or probabilities where the replayed images have these.
    """
    if replay is None:
        return inputs, labels
    replayed, targets = replay.draw(preprocess, generator)
    if targets.is_floating_point():
        labels = F.one_hot(labels, targets.shape[1]).to(targets)
    return torch.cat([inputs, replayed]), torch.cat([labels, targets])


def digest_replay(start: Start) -> str:
    """sha256 of what a start replays."""
    digest = hashlib.sha256(start.looks.encode())
    for tensor in (start.replay.images, start.replay.labels):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
