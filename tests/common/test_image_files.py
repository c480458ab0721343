"""One image file of any mode becomes RGB pixels, or is refused for a reason."""

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.datasets.readers import image_files
from common.datasets.readers.image_files import ImageError, is_image, read_image, read_picture
from tests.common.pictures import draw_noise

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def test_transparency_is_laid_over_white(tmp_path: Path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")

    assert (read_image(tmp_path / "clear.png") == 255).all()


def test_a_transparent_palette_colour_is_laid_over_white(tmp_path: Path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([9, 9, 9, 0, 0, 0])
    image.save(tmp_path / "clear.png", transparency=1)

    assert (read_image(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str):
    grey = np.array([[0, 0x8000, 0xFFFF]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"grey.{suffix}")

    pixels = read_image(tmp_path / f"grey.{suffix}")

    assert pixels[:, 0].tolist() == [[0, 128, 255]] * 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.0, 300.0]], np.float32), "floating-point grey values are not in"),
        (np.array([[0.0, np.nan]], np.float32), "floating-point grey values are not in"),
        (np.array([[0, 1 << 20]], np.int32), "do not fit into 16 bits"),
    ],
    ids=["float", "nan", "32-bit"],
)
def test_grey_values_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray, reason: str):
    Image.fromarray(values).save(tmp_path / "grey.tif")

    with pytest.raises(ImageError, match=reason):
        read_image(tmp_path / "grey.tif")


def test_an_animation_gives_its_first_picture(tmp_path: Path):
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])

    assert read_image(tmp_path / "two.gif")[:, 0, 0].tolist() == [255, 0, 0]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_unpacks(tmp_path: Path, side: int):
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))

    with pytest.raises(ImageError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")


@given(mode=st.sampled_from(MODES), width=st.integers(1, 40), height=st.integers(1, 40), turn=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_any_mode_size_and_orientation_gives_rgb_of_its_area(mode: str, width: int, height: int, turn: int):
    exif = Image.Exif()
    exif[0x0112] = turn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        Image.new(mode, (width, height)).save(path, exif=exif)

        pixels = read_image(path)

    assert tuple(pixels.shape) == (3, *((width, height) if turn > 4 else (height, width)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_any_medical_depth_fills_the_range(tmp_path: Path, bits: int):
    Image.fromarray(np.array([[0, (1 << bits) - 1]], np.uint16)).save(tmp_path / "grey.png")

    picture = read_picture(tmp_path / "grey.png")

    assert (picture.pixels[0, :, 0].tolist(), picture.grey_bits) == ([0, 255], bits)


@given(level=st.integers(0x4000, 0xFFFF))
@settings(max_examples=20, deadline=None)
def test_16_bit_grey_keeps_its_leading_bits(level: int):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grey.png"
        Image.fromarray(np.full((2, 2), level, np.uint16)).save(path)

        pixels = read_image(path)

    assert set(pixels.flatten().tolist()) == {level >> 8}


def test_a_jpeg_beyond_the_limit_is_decoded_at_reduced_size(tmp_path: Path):
    Image.new("L", (400, 300), 200).save(tmp_path / "phone.jpg")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_files, "MAX_MEGAPIXELS", 0.1)
        picture = read_picture(tmp_path / "phone.jpg", max_megapixels=0.1)

    assert (picture.size, picture.pixels.shape) == ((400, 300), (150, 200, 3))


@pytest.mark.parametrize(("limit", "is_read"), [(0.11, False), (0.12, True)])
def test_a_large_png_is_read_only_if_its_owner_allows_it(tmp_path: Path, limit: float, is_read: bool):
    Image.new("L", (400, 300)).save(tmp_path / "large.png")

    if is_read:
        assert read_image(tmp_path / "large.png", limit).shape == (3, 300, 400)
    else:
        with pytest.raises(ImageError, match="allow it by --max-megapixels"):
            read_image(tmp_path / "large.png", limit)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png"])
def test_further_pages_and_frames_are_told(tmp_path: Path, suffix: str):
    pages = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    pages[0].save(tmp_path / f"two.{suffix}", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / f"one.{suffix}")

    assert [read_picture(tmp_path / f"{name}.{suffix}").has_more_pages for name in ("two", "one")] == [True, False]


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "jp2", "mpo", "dib", "pbm", "pnm"])
def test_every_listed_suffix_is_read(tmp_path: Path, suffix: str):
    path = tmp_path / f"image.{suffix}"
    formats = {"jfif": "jpeg", "jpe": "jpeg", "jp2": "jpeg2000", "pbm": "ppm", "pnm": "ppm"}
    Image.new("RGB", (40, 30)).save(path, formats.get(suffix, suffix))

    assert is_image(path)
    assert read_image(path).shape == (3, 30, 40)


@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp"]))
@settings(max_examples=80, deadline=None)
def test_damaged_bytes_give_pixels_or_a_reason(data: st.DataObject, suffix: str):
    with tempfile.TemporaryDirectory() as folder:
        path = draw_noise(Path(folder) / f"image.{suffix}", seed=0)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

        try:
            channels = len(read_image(path))
        except ImageError:
            channels = None

    assert channels in (None, 3)


@given(content=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_bytes_that_are_no_image_give_a_reason(content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "image.png").write_bytes(content)

        with pytest.raises(ImageError):
            read_image(Path(folder) / "image.png")
