"""Differentially private local training: Opacus clips each image's gradient and adds noise (Abadi et al., 2016).

What the budget covers: the weights, as they are uploaded. It covers neither the counts of images nor the accuracies in
the manifest, which come from the validation and test images. Feature statistics, losses and the audit's figures, which
come from the training images, stay with the client.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, vmap
from torchvision.ops import StochasticDepth

from common.config.run import LocalTrainingConfig
from common.storage.atomic import write_bytes

MISSING = "private training needs Opacus: install the extra `privacy`, or clear 'dp-epsilon'"
MOST_VALUES = 500_000_000
"""Gradients of single images are held for so many values at once, 2 GB; a larger batch is taken in parts."""


@dataclass(frozen=True)
class Budget:
    """epsilon, delta of the whole training; noise_multiplier: deviation of the noise over `max_grad_norm`."""

    epsilon: float
    delta: float
    max_grad_norm: float
    noise_multiplier: float
    sample_rate: float
    """Chance of each image to be in a batch (Poisson sampling)."""
    batch_size: float
    """Images expected in a batch."""
    steps_per_epoch: int
    secret: str = field(repr=False)
    """Whoever knows which images a batch had, or the noise, can take the noise off."""

    @classmethod
    def of(cls, config: LocalTrainingConfig, num_examples: int, secret: str) -> "Budget":
        """
        Raises
        ------
        ValueError: Opacus is missing, or no amount of noise is enough.
        """
        try:
            from opacus.accountants.utils import get_noise_multiplier
        except ImportError:
            raise ValueError(MISSING) from None
        delta = config.dp_delta or 1 / (10 * num_examples)
        sample_rate = min(1.0, config.local_batch_size / num_examples)
        steps = math.ceil(1 / sample_rate)
        try:
            noise = get_noise_multiplier(
                target_epsilon=config.dp_epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps * config.local_epochs,
                accountant="rdp",
            )
        except ValueError:
            raise ValueError(
                f"no noise keeps to 'dp-epsilon' {config.dp_epsilon:g} with a delta of {delta:.1g}: raise one of them"
            ) from None
        batch_size = sample_rate * num_examples
        return cls(config.dp_epsilon, delta, config.dp_max_grad_norm, noise, sample_rate, batch_size, steps, secret)

    def to_manifest(self) -> dict:
        keys = ("epsilon", "delta", "max_grad_norm", "noise_multiplier")
        return {key: round(getattr(self, key), 8) for key in keys}

    def seed(self, epoch: int, purpose: str) -> int:
        """An epoch's own, of 63 bits. Batches and noise must not share one: their draws would be correlated.

        PyTorch's generator on the CPU takes 32 bits of it, which is why every epoch has its own; it is no cryptographic
        one.
        """
        digest = hashlib.sha256(f"{self.secret}/{epoch}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def prepare(model: torch.nn.Module, architecture: str, image_size: int) -> None:
    """Turn off stochastic depth, in place, which draws for a batch and not for an image, and try one batch.

    Raises
    ------
    ValueError: the network cannot be taken image by image.
    """
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    device = next(model.parameters()).device
    images, labels = torch.zeros(2, 3, image_size, image_size, device=device), torch.zeros(2, device=device).long()
    try:
        gradients_by_image(model.train(), images, labels)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"'{architecture}' cannot be trained with 'dp-epsilon', which takes one image at a time "
            f"({str(error).splitlines()[0]}): choose another architecture"
        ) from None


def private_optimizer(optimizer: torch.optim.Optimizer, budget: Budget) -> torch.optim.Optimizer:
    """Opacus's, which clips the gradients of `gradients_by_image` and adds noise to their sum."""
    from opacus.optimizers import DPOptimizer

    return DPOptimizer(
        optimizer,
        noise_multiplier=budget.noise_multiplier,
        max_grad_norm=budget.max_grad_norm,
        expected_batch_size=budget.batch_size,
    )


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,  # (B, 3, S, S), B may be 0
    targets: torch.Tensor,  # (B,)
) -> torch.Tensor:
    """One step of a `private_optimizer`, a part of the batch at a time where its gradients would fill the memory;
    returns the mean loss, 0-dim."""
    most = max(1, MOST_VALUES // sum(parameter.numel() for parameter in model.parameters()))
    parts = list(zip(inputs.split(most), targets.split(most), strict=True))
    total = inputs.new_zeros(())
    for number, (images, labels) in enumerate(parts, 1):
        optimizer.signal_skip_step(number < len(parts))
        total += gradients_by_image(model, images, labels) * len(images)
        optimizer.step()
        optimizer.zero_grad()
    return total / max(1, len(inputs))


def gradients_by_image(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Leave each image's own gradient as `grad_sample` of every parameter; returns the mean loss, 0-dim.

    By `torch.func`, not by Opacus's hooks, which forbid the in-place sums of residual nets. inputs: (B, 3, S, S);
    B may be 0.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss_of(parameters: dict[str, torch.Tensor], image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = functional_call(model, (parameters, buffers), (image[None],))
        return F.cross_entropy(logits, target[None])

    if not len(inputs):
        for parameter in model.parameters():
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        return inputs.new_zeros(())
    gradients, losses = vmap(grad_and_value(loss_of), (None, 0, 0), randomness="different")(parameters, inputs, targets)
    for name, parameter in model.named_parameters():
        parameter.grad_sample = gradients[name]
    return losses.mean()


def secret_of(folder: Path) -> str:
    """256 bits that only this client knows, the same after an interruption."""
    path = folder / "secret.json"
    if not path.exists():
        write_bytes(path, json.dumps(os.urandom(32).hex()).encode())
        path.chmod(0o600)
    return json.loads(path.read_text())


def poisson_batches(num_examples: int, budget: Budget, generator: torch.Generator) -> list[torch.Tensor]:
    """One epoch's batches: each image is in each with the same chance, so their sizes differ."""
    return [
        torch.nonzero(torch.rand(num_examples, generator=generator) < budget.sample_rate).flatten()
        for _ in range(budget.steps_per_epoch)
    ]
