"""Classifiers by name: every torchvision classification model, and small variants for 32 and 64 pixel images.

Small variants use torchvision's own classes at widths and strides that suit small images and small devices.
Not covered yet: pretrained weights, a user's own builder.
"""

import difflib
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock
from torchvision.models.shufflenetv2 import ShuffleNetV2


class SmallResNet(nn.Module):
    """Three stages of torchvision's BasicBlock on a 3 x 3 stem of stride 2; about 0.18 M parameters."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (24, 48, 96), blocks_per_stage: int = 1):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, width = [], widths[0]
        for index, next_width in enumerate(widths):
            for block in range(blocks_per_stage):
                stride = 2 if index and not block else 1
                stages.append(BasicBlock(width, next_width, stride, _projection(width, next_width, stride)))
                width = next_width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(images)).mean((2, 3)))


def _projection(width: int, next_width: int, stride: int) -> nn.Module | None:
    if stride == 1 and width == next_width:
        return None
    return nn.Sequential(nn.Conv2d(width, next_width, 1, stride, bias=False), nn.BatchNorm2d(next_width))


def small_mobilenet_v3(num_classes: int) -> nn.Module:
    """MobileNetV3 with five inverted residuals for 32 pixel images; about 0.15 M parameters."""
    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    settings = [
        block(16, 3, 32, 24, False, "RE", 2),
        block(24, 3, 72, 24, False, "RE", 1),
        block(24, 3, 96, 40, True, "HS", 2),
        block(40, 3, 120, 40, True, "HS", 1),
        block(40, 3, 120, 48, True, "HS", 1),
    ]
    norm_layer = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)  # torchvision's 0.01 lags far behind a short training
    net = MobileNetV3(settings, last_channel=256, num_classes=num_classes, dropout=0.1, norm_layer=norm_layer)
    net.features[0][0].stride = (1, 1)
    return net


def small_shufflenet_v2(num_classes: int) -> nn.Module:
    """ShuffleNetV2 at width 0.5 with a 3 x 3 stem of stride 1; about 0.18 M parameters."""
    net = ShuffleNetV2([2, 4, 2], [24, 48, 96, 192, 512], num_classes=num_classes)
    net.conv1[0].stride = (1, 1)
    net.maxpool = nn.Identity()
    return net


def small_convnext(num_classes: int) -> nn.Module:
    """ConvNeXt (LayerNorm, no BatchNorm) with a 2 x 2 patch stem; about 0.37 M parameters."""
    settings = [CNBlockConfig(32, 64, 1), CNBlockConfig(64, 128, 1), CNBlockConfig(128, None, 2)]
    net = ConvNeXt(settings, stochastic_depth_prob=0.0, layer_scale=1.0, num_classes=num_classes)
    stem = net.features[0][0]
    net.features[0][0] = nn.Conv2d(3, stem.out_channels, kernel_size=2, stride=2)
    return net


SMALL: dict[str, Callable[[int], nn.Module]] = {
    "small_resnet": SmallResNet,
    "small_mobilenet_v3": small_mobilenet_v3,
    "small_shufflenet_v2": small_shufflenet_v2,
    "small_convnext": small_convnext,
}


def names() -> list[str]:
    """Every architecture that `build` knows."""
    return [*SMALL, *torchvision.models.list_models(module=torchvision.models)]


def build(name: str, num_classes: int) -> nn.Module:
    """An untrained classifier: images (B, 3, S, S), normalised, to logits (B, num_classes).

    Raises
    ------
    ValueError: unknown name; the message names the nearest.
    """
    if name in SMALL:
        return SMALL[name](num_classes)
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        raise ValueError(f"unknown architecture '{name}'; did you mean '{nearest[0]}'?")
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
