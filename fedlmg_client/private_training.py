"""Differentially private local training: Opacus clips each image's gradient and adds noise (Abadi et al., 2016).

The privacy budget covers the uploaded weights. It does not cover the manifest's counts of images, nor its accuracies,
which are computed from validation and test images. Feature statistics, losses and the audit's figures are computed from
training images, so they stay on the client.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, vmap
from torchvision.ops import StochasticDepth

from common.config.node import PrivacyConfig
from common.config.run import LocalTrainingConfig
from common.manifest import Privacy
from common.models.feature_statistics import BATCH_NORM
from common.telling import ToldError, first_line
from fedlmg_client.secret_numbers import SecretNumbers

MISSING = "private training needs Opacus, which is not installed: install the extra `privacy`, or clear 'dp-epsilon'"
MOST_VALUES = 500_000_000
"""Gradients of single images hold at most this many values at once (2 GB); a larger batch is split into parts."""


@dataclass(frozen=True)
class Budget:
    """The privacy budget of a whole training, and the noise that keeps to it.

    noise_multiplier: standard deviation of the noise divided by `max_grad_norm`.
    """

    epsilon: float
    delta: float
    max_grad_norm: float
    noise_multiplier: float
    sample_rate: float
    """Probability that an image is in a batch (Poisson sampling)."""
    batch_size: float
    """Expected number of images in a batch."""
    steps_per_epoch: int
    secret: bytes = field(repr=False)
    """Decides batches and noise. With it an attacker could subtract the noise, so it must stay on the client."""
    training: str = ""
    """Name of the training, which changes with its images and settings: another one never draws the same noise."""

    @classmethod
    def from_config(
        cls, privacy: PrivacyConfig, config: LocalTrainingConfig, num_examples: int, secret: bytes, training: str
    ) -> "Budget":
        """Compute how much noise keeps to the client's budget with `num_examples` training images.

        Raises
        ------
        ValueError: Opacus is not installed, or no amount of noise is enough.
        """
        try:
            from opacus.accountants.utils import get_noise_multiplier
        except ImportError:
            raise ToldError(MISSING) from None
        delta = privacy.dp_delta or 1 / (10 * num_examples)
        sample_rate = min(1.0, config.local_batch_size / num_examples)
        steps = math.ceil(1 / sample_rate)
        try:
            noise = get_noise_multiplier(
                target_epsilon=privacy.dp_epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps * config.local_epochs,
                accountant="rdp",
            )
        except ValueError:
            raise ToldError(
                f"no amount of noise reaches 'dp-epsilon' {privacy.dp_epsilon:g} with a delta of {delta:.1g}: raise "
                "'dp-epsilon' or 'dp-delta'"
            ) from None
        batch_size = sample_rate * num_examples
        norm = privacy.dp_max_grad_norm
        return cls(privacy.dp_epsilon, delta, norm, noise, sample_rate, batch_size, steps, secret, training)

    def to_manifest(self) -> Privacy:
        return Privacy(
            epsilon=round(self.epsilon, 8),
            delta=round(self.delta, 8),
            max_grad_norm=round(self.max_grad_norm, 8),
            noise_multiplier=round(self.noise_multiplier, 8),
        )

    def draw(self, epoch: int, purpose: str) -> SecretNumbers:
        """The random numbers of one epoch and one purpose; an epoch that is cut off draws the same ones again."""
        return SecretNumbers(self.secret, self.training, epoch, purpose)


def prepare_model(model: torch.nn.Module, architecture: str, image_size: int) -> None:
    """Turn off stochastic depth in place, and try one batch.

    Stochastic depth samples once a batch, but private training needs independent images.

    Raises
    ------
    ValueError: gradients of single images cannot be computed for this network.
    """
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    device = next(model.parameters()).device
    images, labels = torch.zeros(2, 3, image_size, image_size, device=device), torch.zeros(2, device=device).long()
    try:
        set_training_mode(model)
        compute_gradients_by_image(model, images, labels)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ToldError(
            f"'dp-epsilon' needs gradients of single images, which '{architecture}' does not support "
            f"({first_line(error)}): choose another architecture",
            "'dp-epsilon' needs gradients of single images, which its architecture does not support",
        ) from None


def set_training_mode(model: torch.nn.Module) -> None:
    """Training mode in which BatchNorm keeps the moments that it started with: those of a batch would mix its images,
    and would be a part of the upload that no noise covers."""
    for module in model.train().modules():
        if isinstance(module, BATCH_NORM):
            module.eval()


def make_private_optimizer(optimizer: torch.optim.Optimizer, budget: Budget) -> torch.optim.Optimizer:
    """Wrap an optimizer in Opacus's, which clips the gradients of single images, and add our noise to their sum."""
    from opacus.optimizers import DPOptimizer

    deviation = budget.noise_multiplier * budget.max_grad_norm

    class SecretOptimizer(DPOptimizer):
        noise: SecretNumbers

        def add_noise(self) -> None:
            super().add_noise()  # Opacus's own noise is off.
            for parameter in self.params:
                noise = self.noise.normal(parameter.numel()).mul_(deviation).view(parameter.shape)
                parameter.grad += noise.to(parameter.grad)

    return SecretOptimizer(
        optimizer,
        noise_multiplier=0.0,
        max_grad_norm=budget.max_grad_norm,
        expected_batch_size=budget.batch_size,
    )


def take_private_step(
    model: torch.nn.Module,
    optimizer: Any,  # Opacus's, which has no types
    inputs: torch.Tensor,  # (B, 3, S, S), B may be 0
    targets: torch.Tensor,  # (B,)
    noise: SecretNumbers,
) -> torch.Tensor:
    """Take one step of a `make_private_optimizer`, and return the mean loss, 0-dim.

    A batch whose gradients would fill the memory is processed in parts.
    """
    most = max(1, MOST_VALUES // sum(parameter.numel() for parameter in model.parameters()))
    parts = list(zip(inputs.split(most), targets.split(most), strict=True))
    optimizer.noise, total = noise, inputs.new_zeros(())
    for number, (images, labels) in enumerate(parts, 1):
        optimizer.signal_skip_step(number < len(parts))
        total += compute_gradients_by_image(model, images, labels) * len(images)
        optimizer.step()
        optimizer.zero_grad()
    return total / max(1, len(inputs))


def compute_gradients_by_image(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Store the gradient of each image in `grad_sample` of every parameter, and return the mean loss, 0-dim.

    inputs: (B, 3, S, S), targets: (B,); B may be 0. The gradients come from `torch.func`, because Opacus's hooks
    forbid in-place additions, which residual nets use.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss_of(parameters: dict[str, torch.Tensor], image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = functional_call(model, (parameters, buffers), (image[None],))
        return F.cross_entropy(logits, target[None])

    if not len(inputs):
        for parameter in model.parameters():
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]  # of Opacus
        return inputs.new_zeros(())
    gradients, losses = vmap(grad_and_value(loss_of), (None, 0, 0), randomness="different")(parameters, inputs, targets)
    for name, parameter in model.named_parameters():
        parameter.grad_sample = gradients[name]  # type: ignore[attr-defined]  # of Opacus
    return losses.mean()


def poisson_batches(num_examples: int, budget: Budget, numbers: SecretNumbers) -> list[torch.Tensor]:
    """The batches of one epoch: each image is in each batch with the same probability, so batch sizes differ."""
    return [
        torch.nonzero(numbers.uniform(num_examples) < budget.sample_rate).flatten()
        for _ in range(budget.steps_per_epoch)
    ]
