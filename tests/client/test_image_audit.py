"""Copies among synthetic images are told from images that are merely alike."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from common.storage.images import ImageView
from fedlmg_client import image_audit
from fedlmg_client.cli import app


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_copies_are_found_with_their_originals():
    members = noise(40, 0)
    synthetic = torch.cat([noise(20, 1), members[[7, 3]]])

    report = image_audit.compare(synthetic, ImageView.of(members), ImageView.of(noise(100, 2)))

    assert 2 <= report.copies <= 4  # by chance one unseen image in a hundred comes as near
    assert set(report.pairs[:2]) == {(20, 7), (21, 3)}


def test_images_of_the_same_kind_are_no_copies():
    report = image_audit.compare(noise(200, 1), ImageView.of(noise(40, 0)), ImageView.of(noise(200, 2)))

    assert report.copies <= 6
    assert "no sign of copying" in report.describe()


def test_copies_are_found_where_unseen_images_repeat_training_images():
    members = noise(40, 0)
    unseen = torch.cat([noise(60, 1), members[:4]])

    report = image_audit.compare(torch.cat([members[5:15], noise(20, 2)]), ImageView.of(members), ImageView.of(unseen))

    assert report.copies == 10


def test_distance_is_the_root_mean_square():
    black, white = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)

    distances, rows = image_audit.find_nearest(white, torch.cat([black, white // 2]))

    torch.testing.assert_close(distances, torch.tensor([128 / 255]))
    assert rows.tolist() == [1]


def test_no_images_is_a_sentence():
    with pytest.raises(ValueError, match="found no held-out images"):
        image_audit.compare(noise(2, 0), ImageView.of(noise(2, 1)), ImageView.of(noise(0, 2)))


def test_the_command_says_it_and_draws_the_pairs(tmp_path: Path):
    for split, seed in (("train", 0), ("validation", 1), ("test", 2)):
        (tmp_path / "own" / split / "cat").mkdir(parents=True)
        for index, image in enumerate(noise(6, seed)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "own" / split / "cat" / f"{index}.png")
    arguments = ["audit-images", str(tmp_path / "own" / "train"), "--data", str(tmp_path / "own"), "--image-size", "8"]

    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "pairs.png")])

    assert done.exit_code == 0
    assert "6 of 6 synthetic images (100.0%)" in " ".join(done.output.split())
    assert Image.open(tmp_path / "pairs.png").size == (6 * 64, 128)
