"""The images in the workspace as one labelled set, of the student's size.

On the disk they keep the size that the diffusion model gave them. A small set is held in memory; a large one goes into
a file of the workspace, once, and is read from there by rows.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.config import ConfigError
from common.processes import num_processors
from common.storage.images import ImageFile, Images
from common.upload import Upload
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.run import Run
from fedlmg_server.synthesis import filters, scores, store
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.synthesis.plan import PlannedImage

MOST_IN_MEMORY = 2**30
"""Bytes of images of the student's size that are held in memory."""
PART = 64
"""Images that are decoded at once; a photograph of 512 pixels takes 0.8 MB."""


@dataclass(frozen=True)
class SyntheticSet:
    images: Images
    """uint8 (N, 3, image_size, image_size)"""
    labels: torch.Tensor
    """int64 (N,), indices into `class_names`"""
    clients: list[str]
    """The client whose classifier guided each image, N names."""
    class_names: list[str]
    rejected: Rejected = field(default_factory=dict)
    """Images that were generated and are not here."""


def read_synthetic_set(run: Run, method: str = "fedlmg") -> SyntheticSet:
    """Every planned image, in the plan's order, unless a filter rejects it (see `synthesis.filters`).

    Raises
    ------
    ValueError: no image passes.
    ConfigError: the disk is too small for a file of the images.
    """
    paths, labels, clients = [], [], []
    rejected: Rejected = {}
    for upload in run.uploads:
        passing = list(_passing(run, upload, method, rejected))
        paths += [image.path(run.image_folder(upload, method)) for image in passing]
        labels += [run.class_names.index(image.class_name) for image in passing]
        clients += [upload.client] * len(passing)
    if not labels:
        raise ValueError(
            "no synthetic image passed the filter: lower the config key 'min-confidence' or guide more strongly"
        )
    images = read_images(paths, run.preprocess, run.workspace.distillation, method)
    return SyntheticSet(images, torch.tensor(labels), clients, run.class_names, rejected)


def _passing(run: Run, upload: Upload, method: str, rejected: Rejected) -> Iterator[PlannedImage]:
    known = scores.read_scores(run.image_folder(upload, method))
    for image in store.planned_images(run, upload):
        if why := filters.find_reason(known[image.file], run.config.synthesis.min_confidence, method == "fedlmg"):
            filters.count_rejected(rejected, upload.client, image.class_name, why)
        else:
            yield image


def read_images(paths: list[Path], preprocess: PreprocessSpec, folder: Path, name: str) -> Images:
    """Images uint8 (N, 3, image_size, image_size): a tensor, or a file in `folder` whose name begins with `name`.

    Raises
    ------
    ConfigError: the disk is too small for the file.
    """
    shape = torch.Size([len(paths), 3, preprocess.image_size, preprocess.image_size])
    if shape.numel() > MOST_IN_MEMORY:
        return _write_file(paths, preprocess, shape, folder, name)
    images = torch.empty(shape, dtype=torch.uint8)
    for start, part in zip(range(0, len(paths), PART), _decode(paths, preprocess), strict=True):
        images[start : start + PART] = part
    return images


def _write_file(paths: list[Path], preprocess: PreprocessSpec, shape: torch.Size, folder: Path, name: str) -> ImageFile:
    """The file, unless it is there with just these images."""
    file = folder / f"{name}-{_fingerprint(paths, shape)}.uint8"
    if file.exists():
        return ImageFile(file, shape)
    folder.mkdir(parents=True, exist_ok=True)
    for former in [*folder.glob(f"{name}-*.uint8"), *folder.glob(f".{name}-*.part")]:
        with suppress(PermissionError):  # On Windows while it is open.
            former.unlink()
    if (free := shutil.disk_usage(folder).free) < shape.numel():
        raise ConfigError(
            f"the images of the student's size need {shape.numel() / 1e9:.1f} GB in {folder}, but {free / 1e9:.1f} GB "
            "are free: make room there, or move the workspace to a larger disk"
        )
    unfinished = file.with_name(f".{file.name}.part")
    with open(unfinished, "wb") as out:
        for part in _decode(paths, preprocess):
            out.write(part.numpy().data)
        os.fsync(out.fileno())
    os.replace(unfinished, file)
    return ImageFile(file, shape)


def _fingerprint(paths: list[Path], shape: torch.Size) -> str:
    """Of the images as they lie on the disk, and of their size in the file."""
    digest = hashlib.sha256(repr(tuple(shape)).encode())
    for path in paths:
        state = path.stat()
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _decode(paths: list[Path], preprocess: PreprocessSpec) -> Iterator[torch.Tensor]:
    """Parts of `PART` images, uint8 (B, 3, image_size, image_size), decoded by a thread for each processor core."""

    def decode(path: Path) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).contiguous()
        return preprocess.resize(pixels)

    with ThreadPoolExecutor(num_processors()) as threads:
        for start in range(0, len(paths), PART):
            yield torch.stack(list(threads.map(decode, paths[start : start + PART])))
