"""Small classifiers for small images and small devices, with 0.1 to 0.4 million parameters.

They are torchvision's own classes, with widths and strides for images of 32 and 64 pixels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import MLP

from common.models.torchvision_nets import patch_size


class SmallResNet(nn.Module):
    """Three stages of torchvision's BasicBlock after a 3 x 3 stem of stride 2; about 0.18 million parameters."""

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
        logits: torch.Tensor = self.head(self.stages(self.stem(images)).mean((2, 3)))
        return logits


def _projection(width: int, next_width: int, stride: int) -> nn.Module | None:
    if stride == 1 and width == next_width:
        return None
    return nn.Sequential(nn.Conv2d(width, next_width, 1, stride, bias=False), nn.BatchNorm2d(next_width))


def small_mobilenet_v3(num_classes: int) -> nn.Module:
    """MobileNetV3 with five inverted residuals for images of 32 pixels; about 0.15 million parameters."""
    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    settings = [
        block(16, 3, 32, 24, False, "RE", 2),
        block(24, 3, 72, 24, False, "RE", 1),
        block(24, 3, 96, 40, True, "HS", 2),
        block(40, 3, 120, 40, True, "HS", 1),
        block(40, 3, 120, 48, True, "HS", 1),
    ]
    norm_layer = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)  # torchvision's 0.01 is too slow for short training
    net = MobileNetV3(settings, last_channel=256, num_classes=num_classes, dropout=0.1, norm_layer=norm_layer)
    net.features[0][0].stride = (1, 1)
    return net


def small_shufflenet_v2(num_classes: int) -> nn.Module:
    """ShuffleNetV2 at width 0.5 with a 3 x 3 stem of stride 1; about 0.18 million parameters."""
    net = ShuffleNetV2([2, 4, 2], [24, 48, 96, 192, 512], num_classes=num_classes)
    net.conv1[0].stride = (1, 1)
    net.maxpool = nn.Identity()
    return net


def small_convnext(num_classes: int) -> nn.Module:
    """ConvNeXt (LayerNorm, no BatchNorm) with a 2 x 2 patch stem; about 0.37 million parameters."""
    settings = [CNBlockConfig(32, 64, 1), CNBlockConfig(64, 128, 1), CNBlockConfig(128, None, 2)]
    net = ConvNeXt(settings, stochastic_depth_prob=0.0, layer_scale=1.0, num_classes=num_classes)
    stem = net.features[0][0]
    net.features[0][0] = nn.Conv2d(3, stem.out_channels, kernel_size=2, stride=2)
    _spread_weights(net)
    return net


def small_mlp(num_classes: int) -> nn.Module:
    """Two hidden layers with LayerNorm on the image averaged to 16 x 16 pixels; about 0.23 million parameters."""
    mlp = MLP(3 * 16 * 16, [256, 128, num_classes], norm_layer=nn.LayerNorm)
    return nn.Sequential(nn.AdaptiveAvgPool2d(16), nn.Flatten(), mlp)


def small_vit(num_classes: int, image_size: int) -> nn.Module:
    """A vision transformer of four layers on 8 x 8 patches; about 0.31 million parameters at 32 pixels."""
    net = VisionTransformer(image_size, patch_size(image_size), 4, 4, 96, 192, num_classes=num_classes)
    _spread_weights(net)
    return net


def _spread_weights(net: nn.Module) -> None:
    """Draw the weights of every convolution and linear layer anew, of variance 1 / (inputs of a neuron).

    torchvision's ConvNeXt and VisionTransformer draw many with the standard deviation 0.02 of wide nets. Nets as narrow
    as the small ones then read images in varied looks no better than chance for 1,800 updates (measured).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")


SMALL: dict[str, Callable[..., nn.Module]] = {
    "small_resnet": SmallResNet,
    "small_mobilenet_v3": small_mobilenet_v3,
    "small_shufflenet_v2": small_shufflenet_v2,
    "small_convnext": small_convnext,
    "small_mlp": small_mlp,
}
"""Name -> a function of the number of classes that builds a net for images of any size."""
SMALL_OF_ONE_SIZE: dict[str, Callable[[int, int], nn.Module]] = {"small_vit": small_vit}
"""Name -> a function of the number of classes and the image size."""
