"""Every kind of image file becomes the RGB pixels that a person would see."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igkd_hpo.image_file import UnreadableImageError, examine_image, read_image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def palette_image():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return image


def palette_with_transparency():
    image = palette_image()
    image.info["transparency"] = 1
    return image


def rgba_image():
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (*BLUE, 0))
    return image


def grey_alpha_image():
    image = Image.new("LA", (2, 1), (128, 255))
    image.putpixel((1, 0), (0, 0))
    return image


def sixteen_bit_image():
    return Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))


KINDS = {
    "grey": (lambda: Image.fromarray(np.array([[7, 200]], dtype=np.uint8)), [(7, 7, 7), (200, 200, 200)]),
    "black and white": (lambda: Image.new("1", (2, 1), 1), [WHITE, WHITE]),
    "palette": (palette_image, [RED, BLUE]),
    "palette with a transparent colour": (palette_with_transparency, [RED, WHITE]),
    "RGBA": (rgba_image, [RED, WHITE]),
    "grey with alpha": (grey_alpha_image, [(128, 128, 128), WHITE]),
    "16-bit grey": (sixteen_bit_image, [(0, 0, 0), WHITE]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_pixel(tmp_path, kind):
    make, expected = KINDS[kind]
    info = make()
    info.save(tmp_path / "image.png", **({"transparency": 1} if "transparent" in kind else {}))
    pixels = read_image(tmp_path / "image.png", None)
    assert pixels.shape == (3, 1, 2)
    assert pixels.dtype == np.uint8
    assert [tuple(int(v) for v in pixels[:, 0, column]) for column in (0, 1)] == expected


def test_16_bits_are_scaled_not_cut(tmp_path):
    values = np.array([[257 * 100, 257 * 101 - 1]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", None)[0].tolist() == [[100, 101]]


def test_half_transparent_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (1, 1), (0, 0, 0, 51)).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", None).ravel().tolist() == [204, 204, 204]


def test_cmyk_jpeg_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "image.jpg")
    assert read_image(tmp_path / "image.jpg", None).max() <= 2


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [[0, 80], [160, 240]]), (3, [[240, 160], [80, 0]]), (6, [[160, 0], [240, 80]]), (8, [[80, 240], [0, 160]])],
)
def test_the_cameras_orientation_is_followed(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.array([[0, 80], [160, 240]], dtype=np.uint8)).save(tmp_path / "image.png", exif=exif)
    assert read_image(tmp_path / "image.png", None)[0].tolist() == expected


def test_resizing_averages_over_the_area(tmp_path):
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "image.png")
    pixels = read_image(tmp_path / "image.png", 8)
    assert pixels.shape == (3, 8, 8)
    assert np.abs(pixels.astype(int) - 127).max() <= 2  # without antialias: 0 or 255


def test_large_jpeg_comes_out_as_a_small_one_does(tmp_path):
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (800, 1))).save(tmp_path / "image.jpg", quality=95)
    pixels = read_image(tmp_path / "image.jpg", 16)
    assert np.abs(pixels[0, 8] - (np.arange(16) + 0.5) * 255 / 16).max() < 4


def test_the_fast_way_to_decode_jpeg_keeps_detail(tmp_path):
    stripes = np.tile(np.repeat([0, 255], 4), 8).astype(np.uint8)
    Image.fromarray(np.tile(stripes, (64, 1))).save(tmp_path / "image.jpg", quality=95)
    row = read_image(tmp_path / "image.jpg", 32)[0, 16].astype(int)
    assert row.reshape(8, 4)[:, :2].mean() < 40
    assert row.reshape(8, 4)[:, 2:].mean() > 215


def damaged(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_what_cannot_be_read_says_so(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "float.tiff")
    for path in (
        damaged(tmp_path, "cut.png"),
        damaged(tmp_path, "cut.jpg"),
        tmp_path / "text.png",
        tmp_path / "empty.jpg",
        tmp_path / "float.tiff",
        tmp_path / "missing.png",
    ):
        with pytest.raises(UnreadableImageError, match=r"\w"):
            read_image(path, None)


def test_the_guard_against_decompression_bombs_is_on(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        read_image(tmp_path / "image.png", 8)


def deep_png(values):
    """A PNG of 16 bits a channel, which Pillow does not write in colour: (H, W, 3), or (H, W, 4) with alpha."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_used_bits_become_all_of_eight(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 256).astype(np.uint16)
    Image.fromarray(values.reshape(16, 16)).save(tmp_path / "image.png")
    read = examine_image(tmp_path / "image.png", None, bits=bits)
    assert read.bits == bits
    assert np.abs(read.pixels[0].ravel().astype(int) - np.arange(256)).max() <= 1
    assert examine_image(tmp_path / "image.png", None).pixels.max() == round(255 * (2**bits - 1) / 65535)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_the_used_bits_of_colours_too(tmp_path, bits, channels):
    values = np.random.default_rng(0).integers(0, 2**bits, (16, 16, channels))
    values[..., 3:] = 65535  # not transparent
    (tmp_path / "image.png").write_bytes(deep_png(values))
    read = examine_image(tmp_path / "image.png", None, bits=bits)
    assert read.bits == bits
    assert np.abs(read.pixels.transpose(1, 2, 0) - values[..., :3] * (255 / (2**bits - 1))).max() <= 0.5 + 1e-9


def test_what_is_above_the_used_bits_is_white(tmp_path):
    Image.fromarray(np.array([[0, 1023, 1024, 65535]], dtype=np.uint16)).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", None, bits=10)[0].tolist() == [[0, 255, 255, 255]]


def test_a_file_that_says_its_range_is_scaled_by_that(tmp_path):
    (tmp_path / "image.pgm").write_bytes(b"P5 3 1 1023\n" + np.array([0, 511, 1023], dtype=">u2").tobytes())
    for bits in (12, 16):
        read = examine_image(tmp_path / "image.pgm", None, bits=bits)
        assert (read.pixels[0].tolist(), read.bits) == ([[0, 127, 255]], 0)


def test_only_a_regular_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, reason in ((tmp_path / "pipe.png", "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(UnreadableImageError, match=f"{reason}, no regular file"):
            read_image(path, 8)


def test_postscript_is_not_given_to_ghostscript_whatever_the_file_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: pytest.fail("it was run"))
    Image.new("RGB", (8, 8)).save(tmp_path / "image.eps")
    with pytest.raises(UnreadableImageError, match="cannot identify"):
        read_image((tmp_path / "image.eps").rename(tmp_path / "image.png"), None)
