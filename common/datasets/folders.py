"""A torchvision-style image folder: `class/image.png`, or `train|validation|test/class/image.png`.

Without split folders every class is split 70/10/20 in the order of a hash of the files' relative paths: no seed, and
the same on every machine.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from common.datasets.digits import LabeledImages
from common.preprocessing import PreprocessSpec

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Folder name -> split."""
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2


class FolderError(ValueError):
    """A folder that cannot serve as a data set; the message is one sentence for the user."""


@dataclass(frozen=True)
class ImageFolder:
    """Labels index `class_names`, which are sorted; `problems` has one line for each image that was skipped."""

    class_names: list[str]
    splits: dict[str, LabeledImages]
    sizes: dict[tuple[int, int], int]
    """(width, height) of the images on disk -> how many."""
    fingerprint: str
    """sha256 over the relative paths and sizes in bytes of the images."""
    problems: list[str]


def load(root: Path, image_size: int) -> ImageFolder:
    """Read a folder into train, validation and test images of `image_size` pixels on a side.

    Raises
    ------
    FolderError: no such folder, no class folders, or a class without a readable training image.
    """
    files = _split_files(root)
    class_names = sorted({label for entries in files.values() for label in entries})
    spec, problems, splits, sizes = PreprocessSpec(image_size), [], {}, {}
    for split, entries in files.items():
        images, labels = [], []
        for label, paths in sorted(entries.items()):
            for path in paths:
                try:
                    pixels = read_image(path)
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                    problems.append(f"{path.relative_to(root)}: {error}")
                    continue
                size = (pixels.shape[2], pixels.shape[1])
                sizes[size] = sizes.get(size, 0) + 1
                images.append(spec.resize(pixels))
                labels.append(class_names.index(label))
        stacked = torch.stack(images) if images else torch.zeros(0, 3, image_size, image_size, dtype=torch.uint8)
        splits[split] = LabeledImages(stacked, torch.tensor(labels, dtype=torch.int64))
    for index, label in enumerate(class_names):
        if not (splits["train"].labels == index).any():
            raise FolderError(
                f"class folder '{label}' in {root} has no readable training image: add some, or remove the folder"
            )
    return ImageFolder(class_names, splits, sizes, _fingerprint(root, files), problems)


def read_image(path: Path) -> torch.Tensor:
    """uint8 (3, h, w), turned upright by its EXIF tag."""
    with Image.open(path) as image:
        pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _split_files(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Split -> class name -> image files."""
    if not root.is_dir():
        raise FolderError(f"there is no folder {root}: name a folder that has one sub-folder of images for each class")
    folders = _subfolders(root)
    if "train" in {folder.name for folder in folders}:
        files: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLITS.values()}
        for folder in folders:
            if folder.name not in SPLITS:
                raise FolderError(f"folder {root} has split folders and also '{folder.name}': move it into one of them")
            files[SPLITS[folder.name]] |= {label.name: _images(label) for label in _subfolders(folder)}
        folders = _subfolders(root / "train")
        root = root / "train"
    else:
        parts = {folder.name: _split_class(root, _images(folder)) for folder in folders}
        files = {split: {label: part[split] for label, part in parts.items()} for split in SPLITS.values()}
    if not folders:
        raise FolderError(f"folder {root} has no class folders: put each class's images in a sub-folder of its name")
    return files


def _split_class(root: Path, paths: list[Path]) -> dict[str, list[Path]]:
    ordered = sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
    num_validation = round(len(ordered) * VALIDATION_SHARE)
    num_held_out = num_validation + round(len(ordered) * TEST_SHARE)
    return {
        "validation": ordered[:num_validation],
        "test": ordered[num_validation:num_held_out],
        "train": ordered[num_held_out:],
    }


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _fingerprint(root: Path, files: dict[str, dict[str, list[Path]]]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for entries in files.values() for paths in entries.values() for path in paths):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()
