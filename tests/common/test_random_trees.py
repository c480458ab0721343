"""Whatever folders are nested in each other, the reader finds the true classes or refuses, and counts every file."""

import os
from pathlib import Path

import pytest

from common.datasets.readers.finding import find_listing, find_unused
from common.datasets.readers.listing import FolderError, Listing
from tests.common.random_trees import Tree, grow

LEAST_FOUND = 0.9
"""A reader that refuses everything is never wrong."""


def read(root: Path) -> Listing | None:
    """What is found; None if the folder is refused, as it is for a class without images when it is loaded."""
    try:
        listing = find_listing(root)
    except FolderError:
        return None
    return None if listing.empty_classes else listing


def check(tree: Tree, root: Path, listing: Listing) -> None:
    found = {entry.path: (entry.label, entry.split) for entry in listing.entries}
    there = {Path(folder, name) for folder, _, names in os.walk(root) for name in names}
    unused = listing.left_out | find_unused(listing, found)
    assert found == tree.truth
    assert not found.keys() & unused.keys()
    assert {path for path in found.keys() | unused.keys() if path.is_file()} == there


def check_trees(seeds: range, folder: Path) -> None:
    num_found = 0
    for seed in seeds:
        root = folder / str(seed)
        tree = grow(root, seed)
        if listing := read(root):
            num_found += 1
            try:
                check(tree, root, listing)
            except AssertionError as error:
                raise AssertionError(f"tree {seed}: {error}") from error
    assert num_found >= LEAST_FOUND * len(seeds)


def test_100_trees(tmp_path: Path):
    check_trees(range(100), tmp_path)


@pytest.mark.slow
def test_2000_trees(tmp_path: Path):
    check_trees(range(100, 2100), tmp_path)
