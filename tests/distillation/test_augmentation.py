import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.distillation.augmentation import (
    Views,
    apply_views,
    index_of,
    n_views,
    views_from_index,
)

geometries = pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (1, False), (2, True), (4, True)])


def view_pixel_by_pixel(image: torch.Tensor, dy: int, dx: int, flip: bool, padding: int) -> torch.Tensor:
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                source_y, source_x = y + dy - padding, (width - 1 - x if flip else x) + dx - padding
                if 0 <= source_y < height and 0 <= source_x < width:
                    out[channel, y, x] = image[channel, source_y, source_x]
    return out


@geometries
def test_index_round_trip(padding: int, flip: bool) -> None:
    index = torch.arange(n_views(padding, flip))
    views = views_from_index(index, padding, flip)
    assert torch.equal(index_of(views, padding, flip), index)
    assert len(set(zip(*(part.tolist() for part in views), strict=True))) == len(index)
    assert views.dy.dtype == views.dx.dtype == torch.int64
    assert views.flip.dtype == torch.bool
    assert views.flip.any() == flip
    assert int(views.dy.max()) == int(views.dx.max()) == 2 * padding


@pytest.mark.parametrize(("padding", "flip", "count"), [(0, False, 1), (1, False, 9), (4, False, 81), (4, True, 162)])
def test_number_of_views(padding: int, flip: bool, count: int) -> None:
    assert n_views(padding, flip) == count


@geometries
def test_identity_view_is_the_image(padding: int, flip: bool) -> None:
    images = torch.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    views = views_from_index(torch.full((2,), padding * (2 * padding + 2)), padding, flip)
    assert torch.equal(apply_views(images, views, padding), images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_every_view_equals_the_slow_reference(dtype: torch.dtype) -> None:
    padding, flip = 2, True
    count = n_views(padding, flip)
    images = (torch.arange(count * 2 * 4 * 3) % 255 + 1).reshape(count, 2, 4, 3).to(dtype)
    views = views_from_index(torch.arange(count), padding, flip)
    result = apply_views(images, views, padding)
    assert result.dtype == dtype
    for i in range(count):
        dy, dx, flipped = int(views.dy[i]), int(views.dx[i]), bool(views.flip[i])
        assert torch.equal(result[i], view_pixel_by_pixel(images[i], dy, dx, flipped, padding)), (dy, dx, flipped)


@given(seed=st.integers(0, 10_000), padding=st.integers(0, 3), height=st.integers(1, 6), width=st.integers(1, 6))
def test_flip_twice_is_the_identity(seed: int, padding: int, height: int, width: int) -> None:
    images = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(seed))
    centre = torch.full((3,), padding)
    mirror = Views(dy=centre, dx=centre, flip=torch.ones(3, dtype=torch.bool))
    once = apply_views(images, mirror, padding)
    assert torch.equal(once, images.flip(3))
    assert torch.equal(apply_views(once, mirror, padding), images)


def test_result_lies_channels_last() -> None:
    views = views_from_index(torch.tensor([0, 5]), 1, False)
    result = apply_views(torch.zeros(2, 3, 4, 4), views, 1)
    assert result.is_contiguous(memory_format=torch.channels_last)
