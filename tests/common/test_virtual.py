"""Virtual clients: who holds which images, and the default federation, which never changes."""

import hashlib
import zlib
from pathlib import Path

import pytest
import torch

from common.clients import virtual
from common.clients.data import load_client_data, virtual_index
from common.config import Config, ConfigError
from tests.common.pictures import draw_noise

OVERLAP = "0-5;3-8;6-9,0;2,4,6,8"


def clients(**keys: object) -> list:
    config = Config.from_run_config({key.replace("_", "-"): value for key, value in keys.items()})
    return [load_client_data({"partition-id": i}, config) for i in range(config.clients.num_clients)]


def test_images_of_the_default_federation_never_change():
    digest = hashlib.sha256()
    for data in clients():
        for part in (data.train, data.validation, data.test):
            digest.update(part.images.read().numpy().tobytes() + part.labels.numpy().tobytes())

    assert digest.hexdigest() == "400e3bc21f4d0b8981c7f6f327456458b4acbf4cd20ededd5f05d7485c96d710"


def test_default_clients_are_named_by_their_domains():
    names = ("mnist", "optdigits", "mnist-m", "printed")

    assert [data.source for data in clients()] == [f"digits/{name}" for name in names]


def test_clients_know_the_classes_that_the_config_names():
    known = [data.class_names for data in clients(client_classes=OVERLAP)]

    assert known == [list("012345"), list("345678"), list("06789"), list("2468")]


def test_labels_index_a_clients_own_classes():
    whole, part = clients()[1], clients(client_classes=OVERLAP)[1]

    rows = (whole.test.labels >= 3) & (whole.test.labels <= 8)
    assert torch.equal(part.test.images.read(), whole.test.images.read()[rows])
    assert torch.equal(part.test.labels, whole.test.labels[rows] - 3)


def test_clients_of_one_domain_share_its_images():
    first, *_, second = clients(num_clients=5)

    together = torch.cat([first.train.images.read(), second.train.images.read()])
    assert second.name == "mnist-2"
    assert len(together) == 400
    assert len(together.flatten(1).unique(dim=0)) == 400


@pytest.mark.parametrize("partition", ["dirichlet", "shards"])
def test_partition_gives_every_image_to_one_client(partition: str):
    parts = clients(partition=partition, num_clients=6)

    assert sum(len(data.train) for data in parts) == 1600
    assert min(len(data.train) for data in parts) >= virtual.LEAST_IMAGES


def test_shards_leave_each_client_few_classes():
    assert max(len(data.class_names) for data in clients(partition="shards", num_clients=6)) <= 4


def test_partition_follows_the_seed():
    def sizes(seed: int) -> list[int]:
        return [len(data.train) for data in clients(partition="dirichlet", seed=seed)]

    assert sizes(1) == sizes(1)
    assert sizes(1) != sizes(2)


def test_partition_that_leaves_a_client_nothing_is_refused():
    with pytest.raises(ConfigError, match="raise 'dirichlet-alpha'"):
        clients(partition="dirichlet", dirichlet_alpha=0.001, num_clients=50, min_clients=2)


def test_sizes_limit_the_images_of_each_class():
    large, small, *_ = clients(client_sizes="30;3")

    assert torch.bincount(large.train.labels).max() == 30
    assert torch.bincount(small.train.labels).tolist() == [3] * 10


def test_turns_are_of_all_images_of_a_client_and_counter_clockwise():
    upright, turned, *_ = zip(clients(), clients(client_turns=";90"), strict=True)

    assert torch.equal(upright[0].train.images.read(), upright[1].train.images.read())
    for split in ("train", "validation", "test"):
        before, after = (getattr(data, split) for data in turned)
        left_column, bottom_row = before.images.read()[..., :, 0], after.images.read()[..., -1, :]
        assert torch.equal(bottom_row, left_column)
        assert torch.equal(after.labels, before.labels)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client-classes", "0-x"),
        ("client-classes", "5-3"),
        ("client-sizes", "10;none"),
        ("client-turns", "90;45"),
        ("faults", "1:tired"),
        ("faults", "random-labels"),
        ("dirichlet-alpha", 0.0),
    ],
)
def test_key_that_cannot_be_read_is_named(key: str, value: object):
    with pytest.raises(ConfigError, match=f"'{key}'"):
        Config.from_run_config({key: value})


def test_mixed_fills_only_the_keys_left_at_their_defaults():
    config = Config.from_run_config({"dataset": "mixed", "faults": "0:few-epochs"})

    assert config.clients.num_clients == 6
    assert len(set(config.training.architectures.split(","))) == 6
    assert config.simulation.faults == "0:few-epochs"
    assert Config.from_run_config(config.to_run_config()) == config


def test_folder_is_no_virtual_client():
    assert virtual_index("folder", Config()) is None


@pytest.fixture
def two_folders(tmp_path: Path) -> str:
    for folder in ("north", "south"):
        for label in ("cat", "dog", "fox"):
            for number in range(20):
                path = tmp_path / folder / label / f"{number}.png"
                draw_noise(path, seed=zlib.crc32(f"{folder}/{label}/{number}".encode()))
    return f"{tmp_path / 'north'};{tmp_path / 'south'}"


def test_folders_stand_in_for_domains_and_are_shared(two_folders: str):
    north, south, second = clients(folders=two_folders, num_clients=3)

    assert [data.name for data in (north, south, second)] == ["north", "south", "north-2"]
    together = torch.cat([north.train.images.read(), second.train.images.read()])
    assert len(together.flatten(1).unique(dim=0)) == len(together) == len(south.train)


def test_clients_of_folders_know_the_classes_and_sizes_that_the_config_names(two_folders: str):
    first, second = clients(folders=two_folders, num_clients=2, client_classes="0-1;2", client_sizes="4;3")

    assert (first.class_names, second.class_names) == (["cat", "dog"], ["fox"])
    assert (len(first.train), len(second.train)) == (8, 3)


def test_a_folders_images_are_shared_by_dirichlet(two_folders: str):
    parts = clients(folders=two_folders.split(";")[0], num_clients=2, partition="dirichlet", dirichlet_alpha=1.0)

    assert sum(len(data.train) for data in parts) == 42
    assert len(parts[0].train) != len(parts[1].train)


def test_a_class_that_the_folder_lacks_is_refused(two_folders: str):
    with pytest.raises(ValueError, match=r"a class index below 3, .* got '3'"):
        clients(folders=two_folders, num_clients=2, client_classes="0;3")


def test_a_folder_is_split_anew_by_seed_with_every_image_once(tmp_path: Path):
    for index in range(40):
        split, name = ("test" if index == 0 else "train"), ("cat" if index % 4 else "dog")
        draw_noise(tmp_path / split / name / f"{index}.png", index)

    def held(seed: int) -> list[torch.Tensor]:
        (data,) = clients(
            dataset="", folders=str(tmp_path), num_clients=1, min_clients=1, test_share=0.4, seed=seed, image_size=16
        )
        assert [len(part) for part in (data.train, data.validation, data.test)] == [21, 3, 16]
        assert torch.bincount(data.test.labels).tolist() == [12, 4]
        return [part.images.read().flatten(1) for part in (data.train, data.validation, data.test)]

    first, again, other = held(0), held(0), held(1)

    assert len(torch.cat(first).unique(dim=0)) == 40
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[2], other[2])
