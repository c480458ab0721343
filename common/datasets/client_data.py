"""The images that one client trains and tests on: a folder of its own, or its part of the embedded federation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config import Config, ConfigError
from common.datasets import digits, folders
from common.datasets.digits import LabeledImages

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
    """`digits/<domain>` or `folder`."""


def client_name(node_config: NodeConfig) -> str:
    """Node config `name`, else that of the folder (and of the table or list in it), else of the embedded domain."""
    if name := node_config.get("name"):
        return str(name)
    if path := data_path(node_config):
        return f"{path.parent.name}-{path.stem}" if path.is_file() else path.name
    return _domain(node_config)


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
    name = client_name(node_config)
    if path := data_path(node_config):
        outside = str(node_config.get("allow-outside", False)).lower() == "true"
        folder = folders.load(path, config.training.image_size, outside)
        for line in (*(f"skipped {problem}" for problem in folder.problems), *folder.warnings):
            print(f"{name}: {line}", flush=True)
        return ClientData(name, folder.class_names, **folder.splits, fingerprint=folder.fingerprint, source="folder")
    source = f"digits/{_domain(node_config)}"
    splits = digits.load(_domain(node_config))
    return ClientData(name, list(digits.CLASS_NAMES), **splits, fingerprint=source, source=source)


def cache_path(node_config: NodeConfig, config: Config) -> Path:
    """Where the client keeps its models: node config `cache-path`, a virtual client's workspace, or home."""
    name = client_name(node_config)
    if path := node_config.get("cache-path"):
        return Path(str(path)).expanduser().resolve()
    if data_path(node_config):
        return Path.home() / ".cache" / "fedlmg" / name
    return Path(config.workspace).expanduser().resolve() / "virtual-clients" / name


def _domain(node_config: NodeConfig) -> str:
    if "partition-id" not in node_config:
        raise ConfigError("the node config has neither 'data-path' nor 'partition-id': name a folder of images")
    return digits.DOMAINS[int(node_config["partition-id"]) % len(digits.DOMAINS)]
