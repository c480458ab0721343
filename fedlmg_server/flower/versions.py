"""The versions of Python and of the packages that a run was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version


def read_versions() -> dict[str, str]:
    """Name -> version, of Python and of the packages that influence the results of a run."""
    found = {"python": platform.python_version()}
    for package in ("fedlmg", "flwr", "torch", "torchvision", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
