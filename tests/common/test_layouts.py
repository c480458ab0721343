"""Datasets as they are distributed: which images, classes, splits and domains are found in each."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from common.datasets.readers import folders
from common.datasets.readers.finding import find_listing
from common.datasets.readers.listing import FolderError, Listing
from tests.common.pictures import draw


def found(listing: Listing) -> Counter:
    return Counter((entry.label, entry.split) for entry in listing.entries)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def domainnet(tmp_path: Path) -> Path:
    for domain in ("clipart", "real"):
        for index, label in enumerate(("aircraft_carrier", "zebra")):
            names = [f"{domain}/{label}/{domain}_{index:03}_{number:06}.jpg" for number in range(3)]
            for name in names:
                draw(tmp_path / name)
            for split, part in (("train", names[:2]), ("test", names[2:])):
                with open(tmp_path / f"{domain}_{split}.txt", "a") as file:
                    file.writelines(f"{name} {index}\n" for name in part)
    return tmp_path


def test_list_file_whose_first_line_ends_in_no_number_is_refused_in_a_sentence(tmp_path: Path):
    write(tmp_path / "clipart_train.txt", "images of cats and dogs", "clipart/cat/0.png 0")

    with pytest.raises(FolderError, match=r"first line of list .*clipart_train.txt must be 'path label-index'"):
        find_listing(tmp_path / "clipart_train.txt")


@pytest.mark.parametrize("name", ["clipart", "clipart_train.txt", "clipart_test.txt", "#clipart"])
def test_domainnet_gives_one_domain_with_its_splits(domainnet: Path, name: str):
    path = domainnet / name if name[0] != "#" else domainnet.with_name(domainnet.name + name)

    listing = find_listing(path)

    one = {
        ("aircraft_carrier", "train"): 2,
        ("aircraft_carrier", "test"): 1,
        ("zebra", "train"): 2,
        ("zebra", "test"): 1,
    }
    assert found(listing) == one
    assert {entry.path.name.split("_")[0] for entry in listing.entries} == {"clipart"}


def test_domainnet_as_a_whole_gives_every_domain(domainnet: Path):
    domains = Counter(entry.domain for entry in find_listing(domainnet).entries)

    assert domains == {"clipart": 6, "real": 6}


@pytest.fixture
def nico(tmp_path: Path) -> Path:
    for domain in ("autumn", "dim"):
        for index, label in enumerate(("airplane", "hot air balloon")):
            name = f"NICO_DG/{domain}/{label}/{domain}_1.jpg"
            draw(tmp_path / name)
            with open_list(tmp_path / "NICO_DG_official" / f"{domain}_train.txt") as file:
                file.write(f"{name} {index}\n")
    for index, (label, contexts) in enumerate({"airplane": ("aurora", "at sea"), "fox": ("den", "snow")}.items()):
        for context in contexts:
            draw(tmp_path / "NICO_unique" / label / context / "a_1.jpg")
            with open_list(tmp_path / "NICO_unique_official" / f"{label}_{context}_train.txt") as file:
                file.write(f"/home/someone/NICO_unique/{label}/{context}/a_1.jpg {index}\n")
                file.write(f"/home/someone/NICO_unique/{label}/{context}/.DS_Store {index}\n")
    return tmp_path


def open_list(path: Path):
    path.parent.mkdir(exist_ok=True)
    return open(path, "a")


def test_nico_common_gives_a_domain(nico: Path):
    listing = find_listing(nico / "NICO_DG" / "autumn")

    assert found(listing) == {("airplane", "train"): 1, ("hot air balloon", "train"): 1}


@pytest.mark.parametrize(("part", "contexts"), [(0, {"at sea", "den"}), (1, {"aurora", "snow"})])
def test_nico_unique_gives_the_kth_context_of_every_class(nico: Path, part: int, contexts: set[str]):
    listing = find_listing(nico / f"NICO_unique#{part}")

    assert found(listing) == {("airplane", "train"): 1, ("fox", "train"): 1}
    assert {entry.path.parent.name for entry in listing.entries} == contexts


def test_nico_with_both_sets_asks_for_one(nico: Path):
    with pytest.raises(FolderError, match="NICO_DG and NICO_unique: name one"):
        find_listing(nico)


def test_a_mapping_names_classes_that_no_folder_names(tmp_path: Path):
    for number in range(2):
        draw(tmp_path / "flat" / f"{number}.png")
    write(tmp_path / "flat_train.txt", "flat/0.png 0", "flat/1.png 1")
    write(tmp_path / "dg_label_id_mapping.json", json.dumps({"bear": 0, "wolf": 1}))

    assert found(find_listing(tmp_path)) == {("bear", "train"): 1, ("wolf", "train"): 1}


def test_a_pipe_with_the_name_of_a_mapping_is_passed_over(tmp_path: Path):
    draw(tmp_path / "flat" / "0.png")
    write(tmp_path / "flat_train.txt", "flat/0.png 0")
    os.mkfifo(tmp_path / "dg_label_id_mapping.json")

    assert found(find_listing(tmp_path)) == {("flat", "train"): 1}


def test_pacs_lists_give_three_splits(tmp_path: Path):
    for number, split in enumerate(("train", "crossval", "test")):
        for index, label in enumerate(("dog", "horse"), 1):
            draw(tmp_path / "kfold" / "sketch" / label / f"{number}.png")
            with open(tmp_path / f"sketch_{split}_kfold.txt", "a") as file:
                file.write(f"sketch/{label}/{number}.png {index}\n")

    splits = Counter(entry.split for entry in find_listing(tmp_path).entries)

    assert splits == {"train": 2, "validation": 2, "test": 2}


def test_pacs_folders_are_domains_of_classes(tmp_path: Path):
    for domain in ("photo", "sketch"):
        for label in ("dog", "horse"):
            draw(tmp_path / domain / label / "1.png")

    listing = find_listing(tmp_path)

    assert found(listing) == {("dog", None): 2, ("horse", None): 2}
    assert found(listing.part("sketch")) == {("dog", None): 1, ("horse", None): 1}


def test_class_folders_with_folders_of_their_own_stay_classes(tmp_path: Path):
    for name in ("cat/indoor", "cat/garden", "dog/park", "dog/indoor"):
        draw(tmp_path / name / "1.png")

    assert found(find_listing(tmp_path)) == {("cat", None): 2, ("dog", None): 2}


@pytest.fixture
def open_images(tmp_path: Path) -> Path:
    for name in ("fox", "fox-absent", "fox-doubtful", "both", "lion", "other"):
        draw(tmp_path / "train" / "data" / f"{name}.jpg")
    write(
        tmp_path / "train" / "labels" / "classifications.csv",
        "ImageID,Source,LabelName,Confidence",
        "fox,verification,/m/fox,1",
        "fox-absent,machine,/m/fox,0.9",
        "fox-absent,verification,/m/fox,0",
        "fox-doubtful,machine,/m/fox,0.3",
        "both,verification,/m/fox,1",
        "both,verification,/m/lion,1",
        "lion,machine,/m/lion,0.8",
        "other,verification,/m/tree,1",
        "elsewhere,verification,/m/fox,1",
    )
    write(tmp_path / "train" / "metadata" / "classes.csv", "LabelName,DisplayName", "/m/fox,Fox", "/m/lion,Lion")
    return tmp_path


def test_open_images_keeps_images_that_surely_show_one_class(open_images: Path):
    listing = find_listing(open_images)

    assert {entry.path.stem: (entry.label, entry.split) for entry in listing.entries} == {
        "fox": ("Fox", "train"),
        "lion": ("Lion", "train"),
    }


def test_open_images_says_what_it_left_out(open_images: Path):
    problems = find_listing(open_images).problems

    assert [problem.split(" images")[0] for problem in problems] == ["1", "1 labelled"]


def test_open_images_labels_of_one_name_stay_two_classes(open_images: Path):
    write(open_images / "train" / "metadata" / "classes.csv", "/m/fox,Bass", "/m/lion,Bass")

    assert {entry.label for entry in find_listing(open_images).entries} == {"Bass (/m/fox)", "Bass (/m/lion)"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["", "table.csv"])
def test_a_manifest_gives_path_label_and_split(tmp_path: Path, separator: str, name: str):
    rows = [
        ("Path", "Label", "Split"),
        ("a/1.png", "cat", "train"),
        ("a/2.png", "dog", "val"),
        ("b.png", "dog", "test"),
    ]
    for row in rows[1:]:
        draw(tmp_path / row[0])
    write(tmp_path / "table.csv", *(separator.join(row) for row in rows))

    listing = find_listing(tmp_path / name)

    assert found(listing) == {("cat", "train"): 1, ("dog", "validation"): 1, ("dog", "test"): 1}


def test_a_manifest_without_splits_is_split_like_a_folder(tmp_path: Path):
    for index in range(10):
        draw(tmp_path / f"{index}.png", (index + 1, 4))
    write(tmp_path / "table.csv", "path,label", *(f"{index}.png,cat" for index in range(10)))

    splits = folders.load(tmp_path / "table.csv", 16).splits

    assert {name: len(part) for name, part in splits.items()} == {"train": 7, "validation": 1, "test": 2}


def test_a_class_tested_but_never_trained_is_left_out(domainnet: Path):
    write(domainnet / "clipart_train.txt", "clipart/zebra/clipart_001_000000.jpg 1")

    data = folders.load(domainnet / "clipart", 16)

    assert data.class_names == ["zebra"]
    assert "class 'aircraft_carrier' has no training image, so its 1 other images are left out" in data.problems
