"""Public images of an embedded dataset, which take seconds to make and are kept in the cache."""

import hashlib
import json
from pathlib import Path

from common.datasets import embedded
from common.datasets.embedded import registry
from common.datasets.labeled_images import LabeledImages
from common.storage.caches import cache_root
from common.storage.tensors import read_tensors, write_tensors

NUM_HELD_OUT = 1000


def load_public_images(dataset: str, num_images: int) -> tuple[list[str], LabeledImages, LabeledImages]:
    """Class names, training images and held-out images, uint8 (N, 3, 32, 32)."""
    names = list(registry.find_dataset(dataset).class_names)
    return names, _load(dataset, num_images, "public"), _load(dataset, NUM_HELD_OUT, "public-held-out")


def is_cached(dataset: str, num_images: int) -> bool:
    """Whether `load_public_images` need not make the training images."""
    return _file(dataset, num_images, "public").exists()


def _file(dataset: str, num_images: int, purpose: str) -> Path:
    parts = [registry.find_dataset(dataset).name, num_images, purpose, _source_checksum()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return cache_root() / "general" / "images" / f"{key}.safetensors"


def _load(dataset: str, num_images: int, purpose: str) -> LabeledImages:
    path = _file(dataset, num_images, purpose)
    if path.exists():
        tensors, _ = read_tensors(path)
        return LabeledImages(tensors["images"], tensors["labels"])
    images = registry.find_dataset(dataset).make_public_images(num_images, 0, purpose)
    write_tensors(path, {"images": images.images, "labels": images.labels})
    return images


def _source_checksum() -> str:
    """Of the code that makes the images: other code may make others."""
    digest = hashlib.sha256()
    for file in sorted(Path(embedded.__path__[0]).glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
