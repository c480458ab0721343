"""The image folders of virtual clients, which the config key `folders` names instead of an embedded dataset."""

import re
from functools import lru_cache
from pathlib import Path

from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.datasets.readers import folders


def count_folders(config: Config) -> int:
    """The number of folders that the config key `folders` names."""
    return len(_paths(config))


def count_clients(index: int, config: Config) -> int:
    """The number of clients that share the folder of client number `index`."""
    return len(range(index % count_folders(config), config.clients.num_clients, count_folders(config))) or 1


def name_client(index: int, config: Config) -> str:
    """The name of the client's folder, with `-2` for the folder's second client.

    Characters other than letters, digits, `_` and `-` become `-`: `NICO_unique#2` gives `NICO_unique-2`. If two folders
    have the same name, or one has no such character, clients are called `client-0` and so on.
    """
    names = [re.sub(r"[^A-Za-z0-9_-]+", "-", path.name).strip("-") for path in _paths(config)]
    if len(set(filter(None, names))) < len(names):
        return f"client-{index}"
    share = index // len(names)
    return names[index % len(names)] + (f"-{share + 1}" if share else "")


def load(index: int, config: Config, most: int | None) -> tuple[list[str], dict[str, LabeledImages]]:
    """The class names and splits of the whole folder of client number `index`.

    most: the most training images of each class that are read; None reads all.

    Raises
    ------
    FolderError: the folder cannot be used as a dataset.
    """
    return _load(_paths(config)[index % count_folders(config)], config.training.image_size, most)


def _paths(config: Config) -> list[Path]:
    return [Path(part.strip()).expanduser() for part in config.simulation.folders.split(";") if part.strip()]


@lru_cache
def _load(path: Path, image_size: int, most: int | None) -> tuple[list[str], dict[str, LabeledImages]]:
    # The operator of the server chose these folders, and nothing of them leaves this machine.
    folder = folders.load(path, image_size, allow_outside=True, most_per_class=most)
    for problem in folder.problems:
        print(f"{path.name}: skipped {problem}", flush=True)
    return folder.class_names, folder.splits
