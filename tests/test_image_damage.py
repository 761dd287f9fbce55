"""What is optional in an image may be damaged alone, and no bytes do more to a reader than be refused."""

import io
import resource
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from igkd_hpo.image_file import UnreadableImageError, examine_image, image_formats, strict_about_bombs

ROWS, COLUMNS = np.indices((20, 30))
PIXELS = Image.fromarray(np.stack([8 * COLUMNS, 12 * ROWS, 4 * (ROWS + COLUMNS)], axis=2).astype(np.uint8))
LARGEST = 1 << 20  # pixels, in these tests


def lying() -> Image.Exif:
    """A new one for each file: the writer of AVIF takes the orientation out of it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # of a camera held upright
    exif[0x010E] = "a description"
    return exif


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    PIXELS.save(file, kind, **options)
    return file.getvalue()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def with_text(length: int, **options: object) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "x" * length, zip=True)
    return saved("PNG", pnginfo=info, **options)


def with_profile_of_hex(text: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n      20\n{text}", zip=True)
    return saved("PNG", pnginfo=info)


def tiff_whose_text_lies_nowhere(**options: object) -> bytes:
    data = bytearray(saved("TIFF", exif=lying(), **options))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    (entry,) = (
        place for place in range(first + 2, first + 2 + 12 * count, 12) if data[place : place + 2] == b"\x0e\x01"
    )
    struct.pack_into("<I", data, entry + 8, 0xFFFFFF)
    return bytes(data)


DAMAGED = {
    "PNG, EXIF that is none": saved("PNG", exif=b"garbage!"),
    "PNG, EXIF with a wrong checksum": replaced(saved("PNG", exif=lying()), b"a description", b"another text!"),
    "PNG, a profile that is no hex": with_profile_of_hex("zz"),
    "PNG, a text of 3 MB": with_text(3_000_000),
    "PNG, a profile of an unknown compression": replaced(
        saved("PNG", icc_profile=b"profile"), b"ICC Profile\0\0", b"ICC Profile\0\7"
    ),
    "WebP, EXIF that is none": saved("WEBP", lossless=True, exif=b"garbage!"),
    "WebP, EXIF cut off": saved("WEBP", lossless=True, exif=lying().tobytes()[:14]),
    "JPEG, EXIF of another order": replaced(saved("JPEG", exif=lying()), b"Exif\0\0MM\0*", b"Exif\0\0XX\0*"),
    "AVIF, EXIF of another order": replaced(saved("AVIF", exif=lying()), b"MM\0*", b"XX\0*"),
    "TIFF, a text that lies nowhere": tiff_whose_text_lies_nowhere(),
    "TIFF in LZW, a text that lies nowhere": tiff_whose_text_lies_nowhere(compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_pixels_are_read_though_what_is_optional_is_damaged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(DAMAGED[kind])
    with strict_about_bombs():  # as a data set is read
        read = examine_image(path, None)
    assert read.lost_metadata
    # The orientation of a TIFF is not lost, it stands beside the text; an AVIF says it outside of EXIF, too.
    whole = np.rot90(PIXELS, -1) if kind.startswith(("TIFF", "AVIF")) else np.asarray(PIXELS)
    difference = read.pixels.transpose(1, 2, 0).astype(int) - whole
    assert np.abs(difference).max() <= (30 if kind.startswith(("JPEG", "AVIF")) else 0)  # which lose a little


def test_an_orientation_that_is_whole_is_followed_whatever_else_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(with_text(3_000_000, exif=lying()))
    read = examine_image(tmp_path / "image.png", None)
    assert read.lost_metadata
    assert (read.pixels.transpose(1, 2, 0) == np.rot90(np.asarray(PIXELS), -1)).all()


def test_an_orientation_that_cannot_be_asked_for_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: Image.Image) -> Image.Exif:
        raise SyntaxError("not a TIFF file")

    (tmp_path / "image").write_bytes(saved("BMP"))  # of which nothing can be taken out
    monkeypatch.setattr(Image.Image, "getexif", broken)
    read = examine_image(tmp_path / "image", None)
    assert (read.lost_metadata, read.pixels.shape) == (True, (3, 20, 30))


def test_whole_metadata_is_not_called_damaged(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        (tmp_path / kind).write_bytes(saved(kind, exif=lying()))
        assert not examine_image(tmp_path / kind, None).lost_metadata


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_damaged_pixels_are_damaged_with_and_without_metadata(tmp_path: Path, kind: str) -> None:
    data = saved(kind, exif=lying())
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableImageError):
        examine_image(tmp_path / "cut", None)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A quarter of a gigabyte more than this process has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 28), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def seeds() -> dict[str, bytes]:
    """A small file of every kind that can be read and that Pillow can also write."""
    Image.init()
    found = {}
    for kind in image_formats():
        if kind in Image.SAVE:
            for mode in ("RGB", "L", "P", "1"):
                file = io.BytesIO()
                try:
                    with warnings.catch_warnings(action="ignore"):
                        PIXELS.convert(mode).save(file, kind)
                except (OSError, ValueError, KeyError):  # not in these colours
                    continue
                found[f"{kind} {mode}"] = file.getvalue()
    return found


SEEDS = seeds()


@pytest.mark.timeout(60)  # of which it takes a few: no file of some hundred bytes holds a reader up
@settings(max_examples=settings().max_examples * 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.integers(0, 1 << 12), st.binary(min_size=1, max_size=4)), max_size=6),
    kept=st.floats(0.3, 1.0) | st.just(1.0),
)
def test_no_bytes_do_more_than_be_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    little_memory: None,
    kind: str,
    changes: list[tuple[int, bytes]],
    kept: float,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LARGEST)
    data = bytearray(SEEDS[kind])
    for place, new in changes:
        start = place % len(data)
        data[start : start + len(new)] = new
    (tmp_path / "image").write_bytes(data[: int(kept * len(data))])
    why = None
    try:
        read = examine_image(tmp_path / "image", 16)
    except UnreadableImageError as error:
        why = error.__cause__
    else:
        assert (read.pixels.shape, read.pixels.dtype) == ((3, 16, 16), np.uint8)
    assert not isinstance(why, MemoryError)


def png_of(width: int, height: int) -> bytes:
    data = bytearray(saved("PNG"))
    struct.pack_into(">II", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return bytes(data)


BOMBS = {
    "PNG": png_of(65_000, 65_000),
    "PPM": b"P6 65000 65000 255\n" + bytes(100),
    "BMP": saved("BMP")[:18] + struct.pack("<ii", 65_000, 65_000) + saved("BMP")[26:],
    "TGA": saved("TGA")[:12] + struct.pack("<HH", 65_000, 65_000) + saved("TGA")[16:],
    "QOI": b"qoif" + struct.pack(">II", 65_000, 65_000) + saved("QOI")[12:],
    "GIF": saved("GIF")[:6] + struct.pack("<HH", 65_000, 65_000) + saved("GIF")[10:],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_of_a_huge_image_is_refused_before_memory_is_taken(
    tmp_path: Path, little_memory: None, kind: str
) -> None:
    (tmp_path / "bomb").write_bytes(BOMBS[kind])
    with pytest.raises(UnreadableImageError, match=r"bomb|exceeds limit"):
        examine_image(tmp_path / "bomb", 16)


@pytest.mark.filterwarnings("ignore")  # as Pillow's warnings are for who does not listen to them
def test_what_pillow_only_warns_of_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").write_bytes(saved("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(UnreadableImageError, match=r"600 pixels\) exceeds limit of 599"):
        examine_image(tmp_path / "image", 16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert examine_image(tmp_path / "image", 16).pixels.shape == (3, 16, 16)
