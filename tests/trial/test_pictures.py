"""The pictures of a trial: what they show, and how large they are."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from igkd_hpo.trial.pictures import draw_curve, draw_strip

BLUE = (31, 95, 180)


def decode(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def bluish(pixels: np.ndarray) -> np.ndarray:
    return np.abs(pixels - BLUE).sum(axis=2) < 60


def noisy(rng: np.random.Generator, side: int) -> np.ndarray:
    """Photographs are smooth with noise on top: the hardest that a strip has to hold."""
    coarse = rng.integers(0, 255, (8, 3, 4, 4)).repeat(side // 4, axis=2).repeat(side // 4, axis=3)
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [8, 32, 224])
def test_a_strip_stays_small(side: int) -> None:
    rng = np.random.default_rng(0)
    images = noisy(rng, side)
    maps = rng.random((8, side, side)) ** 4
    strip = draw_strip(images, maps, 0.5 * images / 255 + 0.5 * maps[:, None])
    assert len(strip) < 20_000  # on real CIFAR-10 images and maps it is 14 kB


def test_a_strip_shows_each_image_above_its_map_and_overlay() -> None:
    images = np.zeros((2, 3, 8, 8), dtype=np.uint8)
    images[0, 0] = 255  # red
    images[1, 2] = 255  # blue
    maps = np.stack([np.zeros((8, 8)), np.ones((8, 8))])
    overlays = np.zeros((2, 3, 8, 8))
    overlays[0, 1] = 1.0  # green
    pixels = decode(draw_strip(images, maps, overlays))
    height = pixels.shape[0] // 3
    colours = [[tuple(pixels[height * row + height // 2, x]) for x in (62 + 32, 62 + 68 + 32)] for row in range(3)]
    assert colours == [[(255, 0, 0), (0, 0, 255)], [(0, 0, 0), (255, 255, 255)], [(0, 255, 0), (0, 0, 0)]]


def test_a_strip_of_one_image_has_one_column() -> None:
    one = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    assert decode(draw_strip(one, one[:, 0], one)).shape[1] == 62 + 68


def test_a_curve_rises_where_accuracy_does_and_ends_where_the_trial_did() -> None:
    pixels = decode(draw_curve([(1, 0.1), (2, 0.5), (3, 0.9), (4, 0.9)], "trial 1", epochs=7))
    rows, columns = np.nonzero(bluish(pixels))
    left, right = columns.min(), columns.max()
    first, last = rows[columns == left].mean(), rows[columns == right].mean()
    assert first > last + 100  # pixels: higher up is more accurate
    # 4 of 7 epochs: the line stops half way between the axis' ends at pixels 70 and 426
    assert right == pytest.approx((70 + 426) / 2, abs=5)


@pytest.mark.parametrize("metrics", [[], [(1, 0.5)], [(1, 0.0)], [(1, 1.0)], [(3, 0.4), (4, 0.4)]])
def test_a_curve_can_be_drawn_of_next_to_nothing(metrics: list[tuple[int, float]]) -> None:
    png = draw_curve(metrics, "trial 1", epochs=1)
    assert bool(bluish(decode(png)).any()) == bool(metrics)


def test_a_long_curve_stays_small() -> None:
    rng = np.random.default_rng(0)
    curve = [(epoch, 0.9 - 0.8 / epoch + rng.normal(0, 0.02)) for epoch in range(1, 401)]
    assert len(draw_curve(curve, "trial 123: 90.1 %, pruned at epoch 400", epochs=400)) < 10_000
