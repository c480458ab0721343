"""The image folders that virtual clients hold, in place of the embedded federation's domains."""

import re
from functools import lru_cache
from pathlib import Path

from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.datasets.readers import folders


def count_folders(config: Config) -> int:
    return len(_paths(config))


def count_clients(index: int, config: Config) -> int:
    """How many clients hold a part of client `index`'s folder."""
    return len(range(index % count_folders(config), config.federation.num_clients, count_folders(config))) or 1


def name_client(index: int, config: Config) -> str:
    """As the folder is called, `NICO_unique#2` as `NICO_unique-2`; the second client of a folder has `-2` behind it."""
    names = [re.sub(r"[^A-Za-z0-9_-]+", "-", path.name).strip("-") for path in _paths(config)]
    if len(set(names)) < len(names):
        return f"client-{index}"
    share = index // len(names)
    return names[index % len(names)] + (f"-{share + 1}" if share else "")


def load(index: int, config: Config, most: int | None) -> tuple[list[str], dict[str, LabeledImages]]:
    """Class names and splits of client `index`'s whole folder, with at most so many training images of a class.

    Raises
    ------
    FolderError: a folder that cannot serve as a data set.
    """
    return _load(_paths(config)[index % count_folders(config)], config.training.image_size, most)


def _paths(config: Config) -> list[Path]:
    return [Path(part.strip()).expanduser() for part in config.simulation.folders.split(";") if part.strip()]


@lru_cache
def _load(path: Path, image_size: int, most: int | None) -> tuple[list[str], dict[str, LabeledImages]]:
    folder = folders.load(path, image_size, most_per_class=most)
    return folder.class_names, folder.splits
