"""Nets of an operator's own with a bug, each the small ResNet but for what its name says. Validation asks for few
images at once, and each bug but the first comes out with more."""

import os

import torch
from torch import nn

from common.models.small import SmallResNet

FEW = 8


def raises_in_eval(num_classes: int, image_size: int) -> nn.Module:
    """Cannot be put into evaluation mode."""
    model = SmallResNet(num_classes)
    model.eval = lambda: 1 / 0
    return model


class Raising(SmallResNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad and len(images) > FEW:
            raise ValueError("too many images")
        return super().forward(images)


class Dying(SmallResNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad and len(images) > FEW:
            os._exit(0)
        return super().forward(images)


class DyingInTraining(SmallResNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            os._exit(0)
        return super().forward(images)


class NotFinite(SmallResNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (torch.nan if images.requires_grad and len(images) > FEW else 1)


class RaisingAsTeacher(SmallResNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not images.requires_grad and len(images) > 2 * FEW:
            raise ValueError("too many images to read")
        return super().forward(images)


def raising(num_classes: int, image_size: int) -> nn.Module:
    return Raising(num_classes)


def dying(num_classes: int, image_size: int) -> nn.Module:
    return Dying(num_classes)


def dying_in_training(num_classes: int, image_size: int) -> nn.Module:
    return DyingInTraining(num_classes)


def not_finite(num_classes: int, image_size: int) -> nn.Module:
    return NotFinite(num_classes)


def raising_as_teacher(num_classes: int, image_size: int) -> nn.Module:
    return RaisingAsTeacher(num_classes)


class WithoutLayers(nn.Module):
    """Sound, but its logits come from no layer whose rows are the classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, 3 * 32 * 32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T


def without_layers(num_classes: int, image_size: int) -> nn.Module:
    return WithoutLayers(num_classes)
