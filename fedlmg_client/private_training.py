"""Differentially private local training: Opacus clips each image's gradient and adds noise (Abadi et al., 2016).

What the budget covers: the weights, as they are uploaded. It covers neither the counts of images nor the accuracies in
the manifest, which come from the validation and test images. Feature statistics are withheld.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, vmap

from common import architectures
from common.config import LocalTrainingConfig
from common.files import write_bytes

MISSING = "private training needs Opacus: install the extra `privacy`, or clear 'dp-epsilon'"


@dataclass(frozen=True)
class Budget:
    """epsilon, delta of the whole training; noise_multiplier: deviation of the noise over `max_grad_norm`."""

    epsilon: float
    delta: float
    max_grad_norm: float
    noise_multiplier: float
    sample_rate: float
    """Chance of each image to be in a batch (Poisson sampling)."""
    steps_per_epoch: int

    @classmethod
    def of(cls, config: LocalTrainingConfig, num_examples: int) -> "Budget":
        """
        Raises
        ------
        ValueError: Opacus is missing.
        """
        try:
            from opacus.accountants.utils import get_noise_multiplier
        except ImportError:
            raise ValueError(MISSING) from None
        delta = config.dp_delta or 1 / (10 * num_examples)
        sample_rate = min(1.0, config.local_batch_size / num_examples)
        steps = math.ceil(1 / sample_rate)
        noise = get_noise_multiplier(
            target_epsilon=config.dp_epsilon,
            target_delta=delta,
            sample_rate=sample_rate,
            steps=steps * config.local_epochs,
            accountant="rdp",
        )
        return cls(config.dp_epsilon, delta, config.dp_max_grad_norm, noise, sample_rate, steps)

    def to_manifest(self) -> dict:
        keys = ("epsilon", "delta", "max_grad_norm", "noise_multiplier")
        return {key: round(getattr(self, key), 8) for key in keys}


def architecture_of(name: str) -> str:
    """What is trained in its place: no layer may mix the images of a batch."""
    with torch.device("meta"):
        mixes = architectures.has_batch_norm(architectures.build(name, 2, builders={architectures.base(name)}))
    return name + architectures.GROUP_NORM if mixes else name


def private_optimizer(optimizer: torch.optim.Optimizer, budget: Budget, batch_size: int) -> torch.optim.Optimizer:
    """Opacus's, which clips the gradients of `gradients_by_image` and adds noise to their sum."""
    from opacus.optimizers import DPOptimizer

    return DPOptimizer(
        optimizer,
        noise_multiplier=budget.noise_multiplier,
        max_grad_norm=budget.max_grad_norm,
        expected_batch_size=batch_size,
    )


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


def secret_seed(folder: Path) -> int:
    """A seed that only this client knows, the same after an interruption: whoever knows the noise can take it off.

    PyTorch's generator, which draws the noise from it, is no cryptographic one.
    """
    path = folder / "secret.json"
    if not path.exists():
        write_bytes(path, json.dumps(int.from_bytes(os.urandom(8), "big") >> 1).encode())
        path.chmod(0o600)
    return json.loads(path.read_text())


def poisson_batches(num_examples: int, budget: Budget, generator: torch.Generator) -> list[torch.Tensor]:
    """One epoch's batches: each image is in each with the same chance, so their sizes differ."""
    return [
        torch.nonzero(torch.rand(num_examples, generator=generator) < budget.sample_rate).flatten()
        for _ in range(budget.steps_per_epoch)
    ]
