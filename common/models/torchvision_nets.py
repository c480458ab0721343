"""torchvision's classifiers at a given image size.

Most of them reduce an image by a factor of 32, which leaves one pixel of an image of 32 pixels. For images of up to 64
pixels they are changed as follows (ours):

- Convolutional nets and Swin: the first convolution's stride becomes 1 (if it cuts patches, its stride is halved), and
  the stem's max-pools are removed. No parameter changes its shape.
- VGG and AlexNet: in addition, the classifier gets one pixel instead of 7 x 7 (AlexNet: 6 x 6), so its first layer
  is smaller.
- ViT: 8 x 8 patches. MaxViT: a stem of stride 1, and partitions of a sixteenth of the image.
"""

import torchvision
from torch import nn
from torchvision.models import VGG, AlexNet, DenseNet, GoogLeNet, Inception3, MNASNet, ResNet, ShuffleNetV2
from torchvision.models.maxvit import MaxVit

from common.compat import accept_weights_without_version
from common.telling import ToldError

SMALL_IMAGE = 64
"""The largest image size in pixels for which the nets are changed."""
SMALLEST_IMAGE = 28
"""The smallest image size in pixels that any of the nets takes."""
STEM_POOLS = {ResNet: 1, ShuffleNetV2: 1, DenseNet: 1, GoogLeNet: 1, Inception3: 2, VGG: 1}
"""Class of a net -> the number of its max-pools that belong to the stem."""


def build(name: str, num_classes: int, image_size: int) -> nn.Module:
    """An untrained torchvision classifier for images (B, 3, image_size, image_size).

    Raises
    ------
    ValueError: the architecture cannot take images of that size; the message gives the sizes that it takes.
    """
    if image_size < SMALLEST_IMAGE:
        raise ToldError(f"'{name}' needs an image size of at least {SMALLEST_IMAGE} pixels, not {image_size}")
    if name.startswith("vit_"):
        return _vision_transformer(name, num_classes, image_size)
    if name.startswith("maxvit_"):
        return _max_vit(name, num_classes, image_size)
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    net = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
    if isinstance(net, MNASNet):
        accept_weights_without_version(net)
    if image_size <= SMALL_IMAGE:
        _halve_less(net)
    return net


def patch_size(image_size: int) -> int:
    """The side in pixels of a small transformer's patches: the smallest that cuts the image into at most 8 x 8."""
    return next(size for size in range(max(1, image_size // 8), image_size + 1) if image_size % size == 0)


def _halve_less(net: nn.Module) -> None:
    stem = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    if stem.kernel_size == stem.stride:
        stem.padding = tuple(size // 4 for size in stem.kernel_size)
        stem.stride = tuple(size // 2 for size in stem.stride)
    else:
        stem.stride = (1, 1)
    pools = [name for name, module in net.named_modules() if isinstance(module, nn.MaxPool2d)]
    for name in pools[: STEM_POOLS.get(type(net), 0)]:
        net.set_submodule(name, nn.Identity())
    if isinstance(net, VGG | AlexNet):
        net.avgpool = nn.AdaptiveAvgPool2d(1)
        first = 0 if isinstance(net, VGG) else 1
        positions = 49 if isinstance(net, VGG) else 36
        wide = net.classifier[first]
        net.classifier[first] = nn.Linear(wide.in_features // positions, wide.out_features)


def _vision_transformer(name: str, num_classes: int, image_size: int) -> nn.Module:
    patch = int(name.rsplit("_", 1)[1])
    if image_size > SMALL_IMAGE:
        if image_size % patch:
            raise ToldError(f"'{name}' needs an image size that is a multiple of {patch} pixels, not {image_size}")
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, image_size=image_size)
    small = patch_size(image_size)
    side = image_size // small
    # torchvision's functions fix the patch size. So the net is built for the right number of large patches first, and
    # then its patches are made smaller.
    net = torchvision.models.get_model(name, weights=None, num_classes=num_classes, image_size=side * patch)
    net.conv_proj = nn.Conv2d(3, net.hidden_dim, kernel_size=small, stride=small)
    nn.init.trunc_normal_(net.conv_proj.weight, std=(3 * small * small) ** -0.5)
    nn.init.zeros_(net.conv_proj.bias)
    net.image_size, net.patch_size = image_size, small
    return net


def _max_vit(name: str, num_classes: int, image_size: int) -> nn.Module:
    is_small = image_size <= SMALL_IMAGE
    partitions = 16 if is_small else 32
    if image_size % partitions:
        raise ToldError(f"'{name}' needs an image size that is a multiple of {partitions} pixels, not {image_size}")
    # With stride 1 in the stem, the rest of the net sees what it would see of an image twice as large with stride 2.
    side = 2 * image_size if is_small else image_size
    net = MaxVit(
        (side, side),
        stem_channels=64,
        partition_size=image_size // partitions,
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=num_classes,
    )
    if is_small:
        net.stem[0][0].stride = (1, 1)
    return net
