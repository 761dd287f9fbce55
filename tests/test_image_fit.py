"""A photograph becomes a square by what its study says, and keeps its shape where that is asked for."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from igkd_hpo.image_file import examine_image
from igkd_hpo.image_fit import Fit, fit_square

BILINEAR = Image.Resampling.BILINEAR


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(width=st.integers(1, 70), height=st.integers(1, 70), size=st.integers(8, 40), fit=st.sampled_from(get_args(Fit)))
def test_any_image_becomes_a_square_and_one_colour_stays_that(width: int, height: int, size: int, fit: Fit) -> None:
    square = fit_square(Image.new("RGB", (width, height), (200, 30, 7)), size, fit)
    assert square.size == (size, size)
    assert square.getcolors() == [(size * size, (200, 30, 7))]


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_square_is_only_resized(fit: Fit) -> None:
    image = noise(40, 40)
    assert fit_square(image, 40, fit).tobytes() == image.tobytes()
    assert fit_square(image, 16, fit).tobytes() == image.resize((16, 16), BILINEAR).tobytes()


@pytest.mark.parametrize("turned", [False, True])
def test_crop_resizes_the_short_side_and_cuts_the_middle_out(turned: bool) -> None:
    image = noise(96, 48)
    whole = image.resize((32, 16), BILINEAR)
    wanted = np.asarray(whole.crop((8, 0, 24, 16)))
    if turned:
        image, wanted = image.transpose(Image.Transpose.TRANSPOSE), wanted.transpose(1, 0, 2)
    assert np.array_equal(np.asarray(fit_square(image, 16, "crop")), wanted)


def test_crop_alone_does_not_blur() -> None:
    image = noise(33, 16)
    assert fit_square(image, 16, "crop").tobytes() == image.crop((8, 0, 24, 16)).tobytes()


def test_pad_shows_the_whole_image_on_its_mean_colour() -> None:
    image = noise(96, 48)
    square = np.asarray(fit_square(image, 32, "pad"))
    inner = np.asarray(image.resize((32, 16), BILINEAR))
    assert np.array_equal(square[8:24], inner)
    colour = np.round(inner.mean(axis=(0, 1)))
    assert (square[:8] == colour).all()
    assert (square[24:] == colour).all()
    assert np.abs(square.mean(axis=(0, 1)) - inner.mean(axis=(0, 1))).max() < 0.5


@pytest.mark.parametrize("fit", get_args(Fit))
def test_stripes_finer_than_a_pixel_become_grey(fit: Fit) -> None:
    stripes = np.zeros((240, 480, 3), np.uint8)
    stripes[:, ::2] = 255
    square = np.asarray(fit_square(Image.fromarray(stripes), 16, fit)).astype(int)
    assert np.abs(square[4:12] - 128).max() < 10


@pytest.mark.parametrize("mark", [1, 6])
def test_a_turned_photograph_is_fitted_upright_and_from_enough_pixels(tmp_path: Path, mark: int) -> None:
    """JPEG is decoded small where that loses nothing: of the side that counts twice the pixels are left."""
    exif = Image.Exif()
    exif[0x0112] = mark
    width, height = 800, 200
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.jpg", exif=exif, quality=95)
    upright = Image.fromarray(ramp if mark == 1 else np.rot90(ramp, -1).copy())
    for fit in get_args(Fit):
        read = examine_image(tmp_path / "ramp.jpg", 64, fit=fit)
        assert (read.width, read.height) == upright.size
        wanted = np.asarray(fit_square(upright, 64, fit)).astype(int)
        assert np.abs(read.pixels.transpose(1, 2, 0) - wanted).max() <= 4
