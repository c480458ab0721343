"""Classifiers by name: all of torchvision's, small ones, and a user's own, named `package.module:function`."""

import difflib
import hashlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import torchvision
from torch import nn

from common.models import torchvision_nets
from common.models.feature_statistics import BATCH_NORM
from common.models.small import SMALL, SMALL_OF_ONE_SIZE
from common.telling import ToldError

GROUP_NORM = "+groupnorm"
"""A suffix of any architecture's name: the same net with GroupNorm instead of BatchNorm.

BatchNorm's statistics mix the images of a batch, which differentially private training cannot allow.
"""
MOST_GROUPS = 32
"""The most groups of a GroupNorm layer."""


def list_names() -> list[str]:
    """The names of all architectures that `build` knows without a builder."""
    return [*SMALL, *SMALL_OF_ONE_SIZE, *torchvision.models.list_models(module=torchvision.models)]


def is_builder(name: str) -> bool:
    """Whether `name` names a function to import, `package.module:function`."""
    return ":" in name


def build(name: str, num_classes: int, image_size: int = 32, builders: Collection[str] = ()) -> nn.Module:
    """An untrained classifier, from normalised images (B, 3, image_size, image_size) to logits (B, num_classes).

    Parameters
    ----------
    builders: the names `package.module:function` that may be imported. The function takes the number of classes and the
        image size. Never pass names that another party sent.

    Raises
    ------
    ValueError: the name is unknown (the message gives the nearest), the architecture cannot take images of that size,
        or the builder is not allowed or cannot be imported.
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
        raise ToldError(
            f"the architecture '{name}' is unknown; did you mean '{nearest[0]}'?",
            f"its architecture is unknown; the nearest is '{nearest[0]}'",
        )
    return torchvision_nets.build(name, num_classes, image_size)


def hash_source(name: str, builders: Collection[str]) -> dict[str, str]:
    """Module -> sha256 of the source of a builder, and of all that it uses of its own package; empty without a builder.

    builders: as for `build`, which raises the same errors.
    """
    if not is_builder(name):
        return {}
    _find_builder(name, builders)
    module_name = name.partition(":")[0]
    waiting, sources, package = [sys.modules[module_name]], {}, module_name.partition(".")[0]
    while waiting:
        module = waiting.pop()
        sources[module.__name__] = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
        for value in vars(module).values():
            used = sys.modules.get(value.__name__ if inspect.ismodule(value) else str(getattr(value, "__module__", "")))
            # What is built into Python, as `__builtins__` of every module, has no file.
            ours = used and used.__name__.partition(".")[0] == package and getattr(used, "__file__", None)
            if used and ours and used.__name__ not in sources:
                waiting.append(used)
    return dict(sorted(sources.items()))


def base_architecture(name: str) -> str:
    """The architecture's name without the suffix `+groupnorm`."""
    return name.removesuffix(GROUP_NORM)


def with_group_norm(model: nn.Module) -> nn.Module:
    """Replace each BatchNorm in `model` by a GroupNorm of at most 32 groups, in place.

    Returns the model, or a new layer if the model itself is a BatchNorm.
    """
    if isinstance(model, BATCH_NORM):
        return nn.GroupNorm(math.gcd(MOST_GROUPS, model.num_features), model.num_features)
    for name, child in model.named_children():
        setattr(model, name, with_group_norm(child))
    return model


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer of `model` is a BatchNorm."""
    return any(isinstance(module, BATCH_NORM) for module in model.modules())


def _find_builder(name: str, builders: Collection[str]) -> Callable[[int, int], object]:
    if name not in builders:
        raise ToldError(
            f"builder '{name}' is not imported because nobody named it on this machine: name it by `--builder` or in "
            "the settings, if you trust it",
            "an architecture is a builder that nobody named on its machine",
        )
    module, _, function = name.partition(":")
    try:
        found: Callable[[int, int], object] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ToldError(
            f"builder '{name}' cannot be imported ({error}): check its name and the Python path",
            "the builder of its architecture cannot be imported",
        ) from None
    return found


def _own(name: str, num_classes: int, image_size: int, builders: Collection[str]) -> nn.Module:
    model = _find_builder(name, builders)(num_classes, image_size)
    if not isinstance(model, nn.Module):
        raise ToldError(
            f"builder '{name}' must return a torch.nn.Module, and returned a {type(model).__name__}",
            "the builder of its architecture does not return a torch.nn.Module",
        )
    return model
