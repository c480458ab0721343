"""Co-Boosting (Dai et al., ICLR 2024): images and ensemble improve each other, epoch by epoch.

1. A generator makes hard images: cross-entropy weighted by how unsure the ensemble is, disagreement with the student.
2. Each client's weight in the ensemble moves by the sign of its gradient, to read the images so far as asked.
3. The student follows the ensemble on images pushed a little, in a random direction of the ensemble's outputs.
Rebuilt from the paper; weights and step sizes as in its authors' code. The student takes as many updates as everyone's.
"""

import torch
import torch.nn.functional as F

from fedlmg_server.baselines import data_free
from fedlmg_server.baselines.data_free import BATCH_SIZE, Ensemble
from fedlmg_server.baselines.outcome import Outcome
from fedlmg_server.baselines.virtual_run import VirtualRun

ADVERSARIAL_WEIGHT, ADVERSARIAL_TEMPERATURE = 1.0, 3.0
WEIGHT_STEP, WEIGHT_STEP_DECAY = 0.01, 0.99
"""Of a client's weight, for each batch of the pool; the decay is by epoch."""
PUSH, PUSH_TEMPERATURE = 8 / 255, 4.0
"""How far a pixel in [0, 1] moves, and how much the ensemble's outputs are softened to find where to."""


def co_boosting(run: VirtualRun) -> Outcome:
    return data_free.train_on_generated(run, generator_loss, show=push, reweight=reweight_by_epoch)


def generator_loss(
    labels: torch.Tensor,  # (B,)
    logits: torch.Tensor,  # (B, classes)
    distance: torch.Tensor,  # (), not used: the method has no BatchNorm loss
    student_logits: torch.Tensor,  # (B, classes)
) -> torch.Tensor:
    """Of an image that the ensemble reads as asked with probability p, cross-entropy counts 1 - p."""
    surprise = F.cross_entropy(logits, labels, reduction="none")
    hard = ((1 - (-surprise.detach()).exp()) * surprise).mean()
    apart = data_free.divergence(logits, student_logits, ADVERSARIAL_TEMPERATURE).mean()
    return hard - ADVERSARIAL_WEIGHT * apart


def reweight_by_epoch(ensemble: Ensemble, images: torch.Tensor, labels: torch.Tensor, epoch: int) -> None:
    reweight(ensemble, images, labels, WEIGHT_STEP * WEIGHT_STEP_DECAY**epoch)


def reweight(ensemble: Ensemble, images: torch.Tensor, labels: torch.Tensor, step: float) -> None:
    """Move every client's weight, in [0, 1], by `step` for each batch of images."""
    for shown, asked in zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
        weights = ensemble.weights.clone().requires_grad_()
        loss = F.cross_entropy(ensemble.logits(shown, weights), asked)
        gradient = torch.autograd.grad(loss, weights)[0]
        moved = (ensemble.weights - step * gradient.sign()).clamp(0, 1)
        # An ensemble in which no client has a weight reads nothing.
        ensemble.weights = moved if moved.any() else ensemble.weights


def push(ensemble: Ensemble, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images in [0, 1] with every pixel moved by PUSH along a random mix of the ensemble's outputs."""
    images = images.clone().requires_grad_()
    probabilities = (ensemble.logits(images) / PUSH_TEMPERATURE).softmax(1)
    mix = (torch.rand(probabilities.shape, generator=generator) * 2 - 1).to(images.device)
    gradient = torch.autograd.grad((mix * probabilities).sum(), images)[0]
    return (images.detach() + PUSH * gradient.sign()).clamp(0, 1)
