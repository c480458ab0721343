"""The image folders of virtual clients, which the config key `folders` names instead of an embedded dataset."""

import re
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np
import torch

from common.config import Config
from common.datasets.labeled_images import LabeledView
from common.datasets.readers import folders
from common.storage.caches import image_cache

VALIDATION_SHARE = 1 / 8
"""Of the images that a split anew leaves for training and validation, as in folders without splits."""


def count_folders(config: Config) -> int:
    """The number of folders that the config key `folders` names."""
    return len(list_paths(config))


def count_clients(index: int, config: Config) -> int:
    """The number of clients that share the folder of client number `index`."""
    return len(range(index % count_folders(config), config.clients.num_clients, count_folders(config))) or 1


def name_client(index: int, config: Config) -> str:
    """The name of the client's folder, with `-2` for the folder's second client.

    Characters other than letters, digits, `_` and `-` become `-`: `NICO_unique#2` gives `NICO_unique-2`. If two folders
    have the same name, or one has no such character, clients are called `client-0` and so on.
    """
    names = [re.sub(r"[^A-Za-z0-9_-]+", "-", path.name).strip("-") for path in list_paths(config)]
    if len(set(filter(None, names))) < len(names):
        return f"client-{index}"
    share = index // len(names)
    return names[index % len(names)] + (f"-{share + 1}" if share else "")


def load(index: int, config: Config, most: int | None) -> tuple[list[str], dict[str, LabeledView]]:
    """The class names and splits of the whole folder of client number `index`.

    most: the most training images of each class that are read; None, or a split by `test-share`, reads all.

    Raises
    ------
    FolderError: the folder cannot be used as a dataset.
    """
    path, share = list_paths(config)[index % count_folders(config)], config.simulation.test_share
    names, splits = _load(path, config.training.image_size, None if share else most)
    return names, split_anew(splits, share, config.seed) if share else splits


def split_anew(splits: dict[str, LabeledView], share: float, seed: int) -> dict[str, LabeledView]:
    """The same images in other splits: of each class the share `share` for testing, an eighth of the others for
    validation, all drawn by `seed`."""
    images = reduce(LabeledView.join, splits.values())
    labels = images.labels
    drawn: dict[str, list[np.ndarray]] = {split: [] for split in splits}
    for label in labels.unique().tolist():
        rows = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels.numpy() == label))
        test, others = np.split(rows, [round(len(rows) * share)])
        validation, train = np.split(others, [round(len(others) * VALIDATION_SHARE)])
        for split, part in (("train", train), ("validation", validation), ("test", test)):
            drawn[split].append(part)
    rows_of = {split: torch.from_numpy(np.concatenate(parts)) for split, parts in drawn.items()}
    return {split: images.choose(rows) for split, rows in rows_of.items()}


def list_paths(config: Config) -> list[Path]:
    """The folders that the config key `folders` names."""
    return [Path(part.strip()).expanduser() for part in config.simulation.folders.split(";") if part.strip()]


@lru_cache
def _load(path: Path, image_size: int, most: int | None) -> tuple[list[str], dict[str, LabeledView]]:
    # The operator of the server chose these folders, and nothing of them leaves this machine.
    cache = image_cache()
    folder = folders.load(path, image_size, allow_outside=True, most_per_class=most, cache=cache)
    for problem in folder.problems:
        print(f"{path.name}: skipped {problem}", flush=True)
    return folder.class_names, folder.splits
