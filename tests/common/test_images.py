"""Views of images in memory and in files."""

from pathlib import Path

import pytest
import torch

from common.storage.images import ImageFile, ImageView

PIXELS = torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).reshape(5, 3, 2, 2)


@pytest.fixture
def file(tmp_path: Path) -> ImageFile:
    (tmp_path / "images").write_bytes(PIXELS.numpy().tobytes())
    return ImageFile(tmp_path / "images", PIXELS.shape)


def test_view_reads_the_chosen_images_of_all_sources_in_order(file: ImageFile):
    view = ImageView.of(PIXELS + 100).choose(torch.tensor([4, 0])).join(file).choose(torch.tensor([5, 1, 0, 2]))

    assert torch.equal(view.read(), torch.stack([PIXELS[3], PIXELS[0] + 100, PIXELS[4] + 100, PIXELS[0]]))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_view_is_read_in_parts(kind: str, file: ImageFile):
    view = ImageView.of(PIXELS if kind == "memory" else file)

    parts = list(view.split(2))

    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat(parts), PIXELS)


def test_file_that_was_cut_short_is_no_image(file: ImageFile):
    file.path.write_bytes(PIXELS[:4].numpy().tobytes())

    with pytest.raises(OSError, match="must hold 5 images, but ends before number 5"):
        ImageView.of(file).read()
