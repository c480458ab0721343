"""A client's node config, as Flower passes it on: the client's name, images and cache. It needs no PyTorch."""

from collections.abc import Mapping
from pathlib import Path

from common.config import Config, ConfigError
from common.config.fields import fields_of, fill, key
from common.config.node import NodeSettings, PrivacyConfig
from common.names import folder_name
from common.storage.caches import cache_root

NodeConfig = Mapping[str, str | int | float | bool]
CACHES = cache_root()
"""Holds one cache folder for each client with images of its own, unless the client sets `cache-path`."""


def read_node_config(node_config: NodeConfig) -> NodeSettings:
    """What the client says of itself; keys that are not ours are passed over.

    Raises
    ------
    ConfigError: a value that its key does not take.
    """
    given = {name: node_config[key(name)] for name in fields_of(NodeSettings) if key(name) in node_config}
    return fill(NodeSettings, given, "node config key")


def privacy_of(node_config: NodeConfig, config: Config) -> PrivacyConfig:
    """A real client decides in its node config alone; for every virtual one the run's simulation keys decide.

    Raises
    ------
    ConfigError: a value that its key does not take.
    """
    return read_node_config(node_config) if data_path(node_config) else config.simulation


def client_name(node_config: NodeConfig, config: Config) -> str:
    """The client's name: the node config's `name`, or else the name of its images or of the virtual client.

    A folder of images gives its own name; a table or list gives the name of its folder and its own.
    """
    if name := node_config.get("name"):
        return str(name)
    if path := data_path(node_config):
        return f"{path.parent.name}-{path.stem}" if path.is_file() else path.name
    from common.clients import virtual

    return virtual.name_client(partition_index(node_config), config)


def data_path(node_config: NodeConfig) -> Path | None:
    """The path of the client's own images (see `folders.py` in `common/datasets/readers`), or None.

    It is the node config's `data-path`, or `dataset-path`, which is Flower's usual name.
    """
    path = node_config.get("data-path") or node_config.get("dataset-path")
    return Path(str(path)).expanduser().resolve() if path else None


def cache_path(node_config: NodeConfig, config: Config) -> Path:
    """The folder in which the client keeps its models.

    It is the node config's `cache-path`. Without this key, a client with images of its own uses a folder in the home
    directory, and a virtual client uses the workspace.
    """
    name = client_name(node_config, config)
    if path := node_config.get("cache-path"):
        return Path(str(path)).expanduser().resolve()
    if data_path(node_config):
        return CACHES / folder_name(name)
    return Path(config.options.workspace).expanduser().resolve() / "virtual-clients" / folder_name(name)


def partition_index(node_config: NodeConfig) -> int:
    """The number of the virtual client, which is the node config's `partition-id`.

    Raises
    ------
    ConfigError: the node config names neither a partition nor a folder of images.
    """
    if "partition-id" not in node_config:
        sentence = "the node config has neither 'data-path' nor 'partition-id': set 'data-path' to your images"
        raise ConfigError(sentence, sentence)
    return int(node_config["partition-id"])
