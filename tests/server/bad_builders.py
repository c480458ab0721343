"""Nets of an operator's own with a bug, each the small ResNet but for what its name says."""

from torch import nn

from common.models.small import SmallResNet


def raises_in_eval(num_classes: int, image_size: int) -> nn.Module:
    """Cannot be put into evaluation mode."""
    model = SmallResNet(num_classes)
    model.eval = lambda: 1 / 0
    return model
