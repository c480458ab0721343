"""What a run was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Python and the packages that decide what a run yields."""
    found = {"python": platform.python_version()}
    for package in ("fedlmg", "flwr", "torch", "torchvision", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
