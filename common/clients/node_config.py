"""A client's node config, as Flower hands it on: its name, its images, its cache. Nothing here needs PyTorch."""

from collections.abc import Mapping
from pathlib import Path

from common.config import Config, ConfigError

NodeConfig = Mapping[str, str | int | float | bool]
CACHES = Path.home() / ".cache" / "fedlmg"
"""Of clients with folders of their own, one each, unless they say otherwise."""


def client_name(node_config: NodeConfig, config: Config) -> str:
    """Node config `name`, else that of the folder (and of the table or list in it), else that of a virtual client."""
    if name := node_config.get("name"):
        return str(name)
    if path := data_path(node_config):
        return f"{path.parent.name}-{path.stem}" if path.is_file() else path.name
    from common.clients import virtual

    return virtual.name_client(partition_index(node_config), config)


def data_path(node_config: NodeConfig) -> Path | None:
    """The client's own images (see `datasets.folders`): node config `data-path`, or Flower's usual `dataset-path`."""
    path = node_config.get("data-path") or node_config.get("dataset-path")
    return Path(str(path)).expanduser().resolve() if path else None


def cache_path(node_config: NodeConfig, config: Config) -> Path:
    """Where the client keeps its models: node config `cache-path`, a virtual client's workspace, or home."""
    name = client_name(node_config, config)
    if path := node_config.get("cache-path"):
        return Path(str(path)).expanduser().resolve()
    if data_path(node_config):
        return CACHES / name
    return Path(config.workspace).expanduser().resolve() / "virtual-clients" / name


def partition_index(node_config: NodeConfig) -> int:
    """Of a virtual client.

    Raises
    ------
    ConfigError: it has none, nor a folder of images.
    """
    if "partition-id" not in node_config:
        raise ConfigError("the node config has neither 'data-path' nor 'partition-id': name a folder of images")
    return int(node_config["partition-id"])
