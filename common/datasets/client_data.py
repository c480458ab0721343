"""The images that one client trains and tests on: a folder of its own, or its part of the embedded federation."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config import Config, ConfigError
from common.datasets import folders, virtual
from common.datasets.digits import DOMAINS, LabeledImages

VIRTUAL = "digits/"
CACHES = Path.home() / ".cache" / "fedlmg"
"""Of clients with folders of their own, one each, unless they say otherwise."""
NodeConfig = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class ClientData:
    name: str
    class_names: list[str]
    train: LabeledImages
    validation: LabeledImages
    test: LabeledImages
    fingerprint: str
    """Changes when the images change."""
    source: str
    """`digits/<virtual client>` or `folder`."""


def client_name(node_config: NodeConfig, config: Config) -> str:
    """Node config `name`, else that of the folder (and of the table or list in it), else that of a virtual client."""
    if name := node_config.get("name"):
        return str(name)
    if path := data_path(node_config):
        return f"{path.parent.name}-{path.stem}" if path.is_file() else path.name
    return virtual.name(_index(node_config), config)


def data_path(node_config: NodeConfig) -> Path | None:
    """The client's own images (see `folders`): node config `data-path`, or Flower's usual `dataset-path`."""
    path = node_config.get("data-path") or node_config.get("dataset-path")
    return Path(str(path)).expanduser().resolve() if path else None


def load_client_data(node_config: NodeConfig, config: Config) -> ClientData:
    """
    Raises
    ------
    FolderError: the folder cannot serve as a data set.
    ConfigError: the node config names neither a folder nor a partition of the embedded federation.
    """
    name = client_name(node_config, config)
    if path := data_path(node_config):
        outside = str(node_config.get("allow-outside", False)).lower() == "true"
        folder = folders.load(path, config.training.image_size, outside)
        for line in (*(f"skipped {problem}" for problem in folder.problems), *folder.warnings):
            print(f"{name}: {line}", flush=True)
        return ClientData(name, folder.class_names, **folder.splits, fingerprint=folder.fingerprint, source="folder")
    return virtual_data(name, _index(node_config), config)


def virtual_data(client: str, index: int, config: Config) -> ClientData:
    """The part of the embedded federation that virtual client `index` holds.

    Raises
    ------
    ConfigError: a simulation key leaves it without training images.
    """
    class_names, splits = virtual.load(index, config)
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for part in splits.values():
        digest.update(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
    source = f"{VIRTUAL}{virtual.name(index, config)}"
    return ClientData(client, class_names, **splits, fingerprint=digest.hexdigest(), source=source)


def virtual_index(source: str, config: Config) -> int | None:
    """Which virtual client a `source` speaks of; None for a folder, which only its owner can read."""
    num_clients = max(config.federation.num_clients, len(DOMAINS))
    indices = {f"{VIRTUAL}{virtual.name(index, config)}": index for index in range(num_clients)}
    return indices.get(source)


def cache_path(node_config: NodeConfig, config: Config) -> Path:
    """Where the client keeps its models: node config `cache-path`, a virtual client's workspace, or home."""
    name = client_name(node_config, config)
    if path := node_config.get("cache-path"):
        return Path(str(path)).expanduser().resolve()
    if data_path(node_config):
        return CACHES / name
    return Path(config.workspace).expanduser().resolve() / "virtual-clients" / name


def _index(node_config: NodeConfig) -> int:
    if "partition-id" not in node_config:
        raise ConfigError("the node config has neither 'data-path' nor 'partition-id': name a folder of images")
    return int(node_config["partition-id"])
