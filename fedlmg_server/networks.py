"""Whether a net can be built and takes the run's images, found without memory or time for its weights."""

from collections.abc import Collection
from functools import cache

import torch
from accelerate import init_empty_weights

from common.models import architectures
from common.telling import first_line


def check_network(name: str, num_classes: int, image_size: int, builders: Collection[str]) -> None:
    """Build a net, and run it on two images, with shapes alone.

    Raises
    ------
    ValueError: it cannot be built, or does not take images of that size.
    """
    if architectures.is_builder(name):
        _check_network(name, num_classes, image_size, builders)
    else:
        _check_known(name, num_classes, image_size)


@cache
def _check_known(name: str, num_classes: int, image_size: int) -> None:
    """Check a net once for all clients that have it. A builder may change, so it is not checked here."""
    _check_network(name, num_classes, image_size, ())


def _check_network(name: str, num_classes: int, image_size: int, builders: Collection[str]) -> None:
    try:
        with init_empty_weights():
            net = architectures.build(name, num_classes, image_size, builders)
        _run(net.to("meta"), num_classes, image_size, "meta")
    except Exception:  # A builder of the operator's may raise anything, and may do what a tensor without values cannot.
        _try_with_values(name, num_classes, image_size, builders)


def _try_with_values(name: str, num_classes: int, image_size: int, builders: Collection[str]) -> None:
    try:
        with torch.random.fork_rng(devices=[]):
            _run(architectures.build(name, num_classes, image_size, builders), num_classes, image_size, "cpu")
    except Exception as error:
        raise ValueError(f"'{name}' does not work with images of {image_size} pixels: {first_line(error)}") from None


@torch.no_grad()
def _run(net: torch.nn.Module, num_classes: int, image_size: int, device: str) -> None:
    logits = net.eval()(torch.zeros(2, 3, image_size, image_size, device=device))
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        raise ValueError("it must return one number for each class, and does not")
