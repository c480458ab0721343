"""Where a client keeps its models: the folders of its cache, and the words by which commands name them."""

from collections.abc import Callable
from pathlib import Path

RETURNED, PERSONAL, GENERAL, ALONE = "aggregated", "personal", "general", "no-federation"
"""Folders in a cache: the returned model; the client's personal one; the server's general one, made without clients;
the general one, fine-tuned by this client alone."""


def find_upload(cache: Path) -> Path | None:
    """The folder of the upload that was made or sent last."""
    found = sorted(cache.glob("*/upload/manifest.json"), key=_age)
    return found[-1].parent if found else None


def _find(folder: str) -> Callable[[Path], Path | None]:
    return lambda cache: cache / folder if (cache / folder / "model.json").is_file() else None


MODELS: dict[str, Callable[[Path], Path | None]] = {
    "personal": _find(PERSONAL),
    "returned": _find(RETURNED),
    "own": find_upload,
}
"""Word of the option `--model` -> the folder of that model in a cache, or None if the cache has none."""


def find_model(cache: Path, word: str = "") -> Path | None:
    """The folder of a model in a cache; without a word the personal one, or else the returned one."""
    if word:
        return MODELS[word](cache)
    return MODELS["personal"](cache) or MODELS["returned"](cache)


def find_newest_model(caches: Path, word: str = "") -> Path | None:
    """The same in that cache of the folder `caches` whose model is the newest."""
    found = [folder for cache in sorted(caches.glob("*")) if (folder := find_model(cache, word))]
    return max(found, key=lambda folder: max(map(_age, folder.glob("*.json"))), default=None)


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
