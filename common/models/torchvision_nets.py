"""torchvision's classifiers at a given image size.

Most reduce an image 32 times, which leaves one pixel of a 32 pixel image. Up to 64 pixels (ours):

- nets of convolutions, and Swin: the first convolution's stride becomes 1, or half where it cuts patches, and max-pools
  of the stem go; no parameter changes its shape;
- VGG and AlexNet: also one pixel instead of 7 x 7 (6 x 6) before the classifier, whose first layer shrinks with it;
- ViT: 8 x 8 patches; MaxViT: stride 1 in the stem and partitions of a sixteenth of the image.
"""

import torchvision
from torch import nn
from torchvision.models import VGG, AlexNet, DenseNet, GoogLeNet, Inception3, MNASNet, ResNet, ShuffleNetV2
from torchvision.models.maxvit import MaxVit

SMALL_IMAGE = 64
SMALLEST_IMAGE = 28
STEM_POOLS = {ResNet: 1, ShuffleNetV2: 1, DenseNet: 1, GoogLeNet: 1, Inception3: 2, VGG: 1}
"""How many of a net's max-pools belong to its stem."""


def build(name: str, num_classes: int, image_size: int) -> nn.Module:
    """An untrained torchvision classifier for images (B, 3, image_size, image_size).

    Raises
    ------
    ValueError: the architecture cannot take images of that size.
    """
    if image_size < SMALLEST_IMAGE:
        raise ValueError(f"'{name}' wants images of at least {SMALLEST_IMAGE} pixels, not {image_size}")
    if name.startswith("vit_"):
        return _vision_transformer(name, num_classes, image_size)
    if name.startswith("maxvit_"):
        return _max_vit(name, num_classes, image_size)
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    net = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
    if isinstance(net, MNASNet):
        net.__class__ = _MNASNet
    if image_size <= SMALL_IMAGE:
        _halve_less(net)
    return net


def patch_size(image_size: int) -> int:
    """Side in pixels of the patches of a small transformer: the smallest that divides the image into at most 8 x 8."""
    return next(size for size in range(max(1, image_size // 8), image_size + 1) if image_size % size == 0)


class _MNASNet(MNASNet):  # type: ignore[misc]  # torchvision has no types
    """Loads weights that lack torch's version number, which safetensors and Flower do not carry."""

    _load_from_state_dict = nn.Module._load_from_state_dict


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
            raise ValueError(f"'{name}' wants images of a multiple of {patch} pixels, not {image_size}")
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, image_size=image_size)
    small = patch_size(image_size)
    side = image_size // small
    # torchvision's functions fix the patch: the net is made for as many of its patches, then given smaller ones.
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
        raise ValueError(f"'{name}' wants images of a multiple of {partitions} pixels, not {image_size}")
    # Stride 1 in the stem leaves as many pixels as stride 2 on an image of twice the size.
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
