"""Classifiers by name: every torchvision one, small ones, and a user's own, named as `package.module:function`."""

import difflib
import importlib
import math
from collections.abc import Collection

import torchvision
from torch import nn

from common.models import torchvision_nets
from common.models.feature_statistics import BATCH_NORM
from common.models.small import SMALL, SMALL_OF_ONE_SIZE

GROUP_NORM = "+groupnorm"
"""Behind any name: the same net with GroupNorm in place of BatchNorm, whose statistics mix the images of a batch."""
MOST_GROUPS = 32


def list_names() -> list[str]:
    """Every architecture that `build` knows without a builder."""
    return [*SMALL, *SMALL_OF_ONE_SIZE, *torchvision.models.list_models(module=torchvision.models)]


def is_builder(name: str) -> bool:
    """Whether a name stands for a function to import, `package.module:function`."""
    return ":" in name


def build(name: str, num_classes: int, image_size: int = 32, builders: Collection[str] = ()) -> nn.Module:
    """An untrained classifier: images (B, 3, image_size, image_size), normalised, to logits (B, num_classes).

    Parameters
    ----------
    builders: the `package.module:function` names that may be imported; the function takes the number of classes and
        the image size. Never take them from what another party sent.

    Raises
    ------
    ValueError: unknown name (the message names the nearest), an image size that the architecture cannot take, or a
        builder that may not or cannot be imported.
    """
    if name.endswith(GROUP_NORM):
        return with_group_norm(build(base_architecture(name), num_classes, image_size, builders))
    if is_builder(name):
        return _own(name, num_classes, image_size, builders)
    if name in SMALL:
        return SMALL[name](num_classes)
    if name in SMALL_OF_ONE_SIZE:
        return SMALL_OF_ONE_SIZE[name](num_classes, image_size)
    if name not in list_names():
        nearest = difflib.get_close_matches(name, list_names(), n=1, cutoff=0)
        raise ValueError(f"unknown architecture '{name}'; did you mean '{nearest[0]}'?")
    return torchvision_nets.build(name, num_classes, image_size)


def base_architecture(name: str) -> str:
    """The name without what changes its normalisation."""
    return name.removesuffix(GROUP_NORM)


def with_group_norm(model: nn.Module) -> nn.Module:
    """The same module, each BatchNorm replaced by a GroupNorm of at most 32 groups; in place but for the top."""
    if isinstance(model, BATCH_NORM):
        return nn.GroupNorm(math.gcd(MOST_GROUPS, model.num_features), model.num_features)
    for name, child in model.named_children():
        setattr(model, name, with_group_norm(child))
    return model


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, BATCH_NORM) for module in model.modules())


def _own(name: str, num_classes: int, image_size: int, builders: Collection[str]) -> nn.Module:
    if name not in builders:
        raise ValueError(f"builder '{name}' is not named here (settings, `--builder`), so it is not imported")
    module, _, function = name.partition(":")
    try:
        builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"builder '{name}' cannot be imported ({error})") from None
    model = builder(num_classes, image_size)
    if not isinstance(model, nn.Module):
        raise ValueError(f"builder '{name}' returned a {type(model).__name__}, not a torch.nn.Module")
    return model
