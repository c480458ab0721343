"""Which images each virtual client holds, from an embedded dataset or from image folders.

Images are partitioned by domain, by a Dirichlet distribution or into shards. No two clients share an image, and the
same config always gives the same images.
"""

from functools import reduce

import numpy as np
import torch

from common.clients import virtual_folders
from common.config import Config, ConfigError
from common.config.simulation import NUM_CLASSES, classes_of, quarter_turns_of, size_of
from common.datasets.embedded import registry
from common.datasets.embedded.registry import Embedded
from common.datasets.labeled_images import LabeledView
from common.storage.images import ImageView

LEAST_IMAGES = 10
"""The fewest training images that a partition may leave to a client."""
ATTEMPTS = 100
"""The most partitions that are tried before the config is rejected."""
SHARDS_PER_CLIENT = 2


def name_client(index: int, config: Config) -> str:
    """The name of virtual client number `index`.

    It is the client's domain (`mnist`, and `mnist-2` for a second client of this domain), `client-0` if the partition
    mixes the domains, or the name of the client's folder.
    """
    if config.simulation.folders:
        return virtual_folders.name_client(index, config)
    if config.simulation.partition != "domain":
        return f"client-{index}"
    domains = _images(config).domains
    share = index // len(domains)
    return domains[index % len(domains)] + (f"-{share + 1}" if share else "")


def load(index: int, config: Config) -> tuple[list[str], dict[str, LabeledView]]:
    """The class names of virtual client number `index`, and its splits, whose labels index them.

    Raises
    ------
    ConfigError: a simulation key leaves the client without training images.
    FolderError: the client's folder cannot be used as a dataset.
    """
    names = list(_images(config).class_names)
    if config.simulation.folders:
        names, splits = _of_folder(index, config)
    elif config.simulation.partition == "domain":
        splits = _of_domain(index, config)
    else:
        splits = _of_pool(index, config)
    if size := size_of(config.simulation, index):
        splits["train"] = splits["train"].choose(_first_of_each_class(splits["train"].labels, size))
    if turns := quarter_turns_of(config.simulation, index):
        splits = {split: _turn(part, turns) for split, part in splits.items()}
    known = classes_of(config.simulation, index, len(names) if config.simulation.folders else None)
    held = [label for label in known if (splits["train"].labels == label).any()]
    if not held:
        sentence = f"virtual client {index} has no training images: change 'client-classes' or 'partition'"
        raise ConfigError(sentence, sentence)
    parts = {split: _of_classes(part, held, len(names)) for split, part in splits.items()}
    return [names[label] for label in held], parts


def _images(config: Config) -> Embedded:
    return registry.find_dataset(config.simulation.dataset)


def _of_domain(index: int, config: Config) -> dict[str, LabeledView]:
    """The client's share of its domain: every n-th image, if n clients share the domain."""
    images = _images(config)
    number = len(images.domains)
    sharing = len(range(index % number, config.clients.num_clients, number)) or 1
    first = index // number % sharing
    return _every(_load(images, images.domains[index % number]), first, sharing)


def _of_pool(index: int, config: Config) -> dict[str, LabeledView]:
    """The client's share of all domains' images; every split is partitioned in the same proportions."""
    images = _images(config)
    domains = [_load(images, domain) for domain in images.domains]
    pooled = {split: reduce(LabeledView.join, [splits[split] for splits in domains]) for split in domains[0]}
    return _share(pooled, index % config.clients.num_clients, config.clients.num_clients, config)


def _of_folder(index: int, config: Config) -> tuple[list[str], dict[str, LabeledView]]:
    """The class names of the client's folder, and the client's share of its images."""
    sharing = virtual_folders.count_clients(index, config)
    first = index // virtual_folders.count_folders(config) % sharing
    size = size_of(config.simulation, index)
    names, splits = virtual_folders.load(index, config, size * sharing if size else None)
    if config.simulation.partition == "domain":
        return names, _every(splits, first, sharing)
    return names, _share(splits, first, sharing, config)


def _every(splits: dict[str, LabeledView], first: int, sharing: int) -> dict[str, LabeledView]:
    return {split: part.choose(torch.arange(first, len(part), sharing)) for split, part in splits.items()}


def _share(pooled: dict[str, LabeledView], index: int, num_clients: int, config: Config) -> dict[str, LabeledView]:
    attempt = _fair_attempt(pooled["train"].labels.numpy(), num_clients, config)
    return {
        split: part.choose(torch.from_numpy(_cut(part.labels.numpy(), num_clients, config, attempt)[index]))
        for split, part in pooled.items()
    }


def _cut(labels: np.ndarray, num_clients: int, config: Config, attempt: int) -> list[np.ndarray]:
    rng = np.random.default_rng([config.seed, attempt])
    if config.simulation.partition == "shards":
        return split_into_shards(labels, num_clients, rng)
    return split_by_dirichlet(labels, num_clients, config.simulation.dirichlet_alpha, rng)


def _fair_attempt(labels: np.ndarray, num_clients: int, config: Config) -> int:
    for attempt in range(ATTEMPTS):
        if min(map(len, _cut(labels, num_clients, config, attempt))) >= LEAST_IMAGES:
            return attempt
    sentence = (
        f"every client must have {LEAST_IMAGES} training images, and no partition gives them: raise 'dirichlet-alpha' "
        "or lower 'num-clients'"
    )
    raise ConfigError(sentence, sentence)


def split_by_dirichlet(
    labels: np.ndarray, num_clients: int, alpha: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """The sorted rows of each client; the clients' shares of each class follow Dirichlet(alpha) (Hsu et al., 2019)."""
    rows: list[list[np.ndarray]] = [[] for _ in range(num_clients)]
    shares = rng.dirichlet(np.full(num_clients, alpha), max(NUM_CLASSES, labels.max(initial=0) + 1))
    for label, share in enumerate(shares):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(share)[:-1] * len(of_class)).astype(int)
        for client, part in enumerate(np.split(of_class, cuts)):
            rows[client].append(part)
    return [np.sort(np.concatenate(parts)) for parts in rows]


def split_into_shards(labels: np.ndarray, num_clients: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The sorted rows of each client: two of 2 n equal pieces of the images in label order (McMahan et al., 2017)."""
    order = rng.permutation(SHARDS_PER_CLIENT * num_clients).reshape(num_clients, SHARDS_PER_CLIENT)
    pieces = np.array_split(np.argsort(labels, kind="stable"), order.size)
    return [np.sort(np.concatenate([pieces[number] for number in numbers])) for numbers in order]


def _first_of_each_class(labels: torch.Tensor, count: int) -> torch.Tensor:
    rows = [torch.nonzero(labels == label)[:count, 0] for label in labels.unique()]
    return torch.cat([torch.empty(0, dtype=torch.int64), *rows]).sort().values


def _of_classes(part: LabeledView, held: list[int], num_classes: int) -> LabeledView:
    numbers = torch.full((num_classes,), -1)
    numbers[held] = torch.arange(len(held))
    return part.with_labels(numbers[part.labels])


def _turn(part: LabeledView, quarter_turns: int) -> LabeledView:
    return LabeledView(ImageView.of(part.images.read().rot90(quarter_turns, (2, 3))), part.labels)


def _load(images: Embedded, domain: str) -> dict[str, LabeledView]:
    return {split: LabeledView.of(part) for split, part in images.load(domain).items()}
