"""The images on which one client trains and tests: a folder of its own, or its part of an embedded dataset."""

import hashlib
import json
from dataclasses import dataclass

from common.clients import virtual
from common.clients.node_config import NodeConfig, cache_path, client_name, data_path, partition_index, read_node_config
from common.config import Config
from common.datasets.embedded import registry
from common.datasets.labeled_images import LabeledView
from common.datasets.readers import folders


@dataclass(frozen=True)
class ClientData:
    """A client's images with int64 labels that index `class_names`."""

    name: str
    class_names: list[str]
    train: LabeledView
    validation: LabeledView
    test: LabeledView
    fingerprint: str
    """A checksum that changes when the images change."""
    source: str
    """`digits/<virtual client>`, `emoji/<virtual client>`, or `folder`."""


def load_client_data(node_config: NodeConfig, config: Config) -> ClientData:
    """Load the images of the client that `node_config` describes, and print what was skipped.

    Raises
    ------
    FolderError: the client's folder cannot be used as a dataset.
    ConfigError: the node config names neither a folder nor a partition, or holds an impossible value; or a simulation
        key leaves the client without training images.
    """
    name = client_name(node_config, config)
    if path := data_path(node_config):
        own = read_node_config(node_config)
        size, most = config.training.image_size, own.max_megapixels
        folder = folders.load(
            path,
            size,
            own.allow_outside,
            max_megapixels=most,
            cache=cache_path(node_config, config) / "images",
            most_gigabytes=own.image_gigabytes,
        )
        for line in (*(f"skipped {problem}" for problem in folder.problems), *folder.warnings):
            print(f"{name}: {line}", flush=True)
        return ClientData(name, folder.class_names, **folder.splits, fingerprint=folder.fingerprint, source="folder")
    return virtual_data(name, partition_index(node_config), config)


def virtual_data(client: str, index: int, config: Config) -> ClientData:
    """Load the images that virtual client number `index` holds, and name the client `client`.

    Raises
    ------
    ConfigError: a simulation key leaves the client without training images.
    """
    class_names, splits = virtual.load(index, config)
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for part in splits.values():
        part.images.hash_into(digest)
        digest.update(part.labels.numpy().tobytes())
    source = _source(index, config)
    return ClientData(client, class_names, **splits, fingerprint=digest.hexdigest(), source=source)


def virtual_index(source: str, config: Config) -> int | None:
    """The number of the virtual client that `source` stands for; None for a folder, which only its owner can read."""
    num_clients = max(config.clients.num_clients, len(registry.find_dataset(config.simulation.dataset).domains))
    return {_source(index, config): index for index in range(num_clients)}.get(source)


def _source(index: int, config: Config) -> str:
    return f"{registry.find_dataset(config.simulation.dataset).name}/{virtual.name_client(index, config)}"
