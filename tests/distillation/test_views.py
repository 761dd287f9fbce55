from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.views import Boxes, ShiftedCrops, count_views, make_views

geometries = pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (1, False), (2, True), (4, True)])


def view_pixel_by_pixel(image: Tensor, dy: int, dx: int, flip: bool, padding: int) -> Tensor:
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                source_y, source_x = y + dy - padding, (width - 1 - x if flip else x) + dx - padding
                if 0 <= source_y < height and 0 <= source_x < width:
                    out[channel, y, x] = image[channel, source_y, source_x]
    return out


def every(views: ShiftedCrops | Boxes) -> Tensor:
    return torch.arange(views.count)


@pytest.mark.parametrize(("padding", "flip", "count"), [(0, False, 1), (1, False, 9), (4, False, 81), (4, True, 162)])
def test_number_of_shifted_crops(padding: int, flip: bool, count: int) -> None:
    assert ShiftedCrops(padding=padding, mirrored=flip).count == count


@geometries
def test_the_middle_crop_is_the_image(padding: int, flip: bool) -> None:
    images = torch.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    middle = torch.full((2,), padding * (2 * padding + 2))
    assert torch.equal(ShiftedCrops(padding=padding, mirrored=flip).cut(images, torch.arange(2), middle), images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_every_shifted_crop_equals_the_slow_reference(dtype: torch.dtype) -> None:
    views = ShiftedCrops(padding=2, mirrored=True)
    images = (torch.arange(views.count * 2 * 4 * 3) % 255 + 1).reshape(views.count, 2, 4, 3).to(dtype)
    result = views.cut(images, every(views), every(views))
    assert result.dtype == dtype
    for number in range(views.count):
        flipped, place = divmod(number, 25)
        expected = view_pixel_by_pixel(images[number], place // 5, place % 5, bool(flipped), 2)
        assert torch.equal(result[number], expected), number


@given(seed=st.integers(0, 10_000), padding=st.integers(0, 3), height=st.integers(1, 6), width=st.integers(1, 6))
def test_flip_twice_is_the_identity(seed: int, padding: int, height: int, width: int) -> None:
    images = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(seed))
    views = ShiftedCrops(padding=padding, mirrored=True)
    rows = torch.arange(3)
    mirror = views.with_flip(torch.full((3,), padding * (2 * padding + 2)), torch.ones(3, dtype=torch.bool))
    once = views.cut(images, rows, mirror)
    assert torch.equal(once, images.flip(3))
    assert torch.equal(views.cut(once, rows, mirror), images)


def test_shifted_crops_lie_channels_last() -> None:
    views = ShiftedCrops(padding=1, mirrored=False)
    result = views.cut(torch.zeros(2, 3, 4, 4), torch.arange(2), torch.tensor([0, 5]))
    assert result.is_contiguous(memory_format=torch.channels_last)


def ramps(count: int, height: int, width: int) -> Tensor:
    """Images whose two channels are the height and the width of each pixel's middle, in shares of the sides."""
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    x = ((torch.arange(width) + 0.5) / width)[None, :].expand(height, width)
    return torch.stack([y, x]).expand(count, 2, height, width)


def test_a_box_shows_its_part_of_its_image() -> None:
    height, width = 12, 16
    boxes = Boxes.draw(torch.tensor([5, -7, 2**62]), 40, (0.3, 0.9), mirrored=True)
    rows = torch.arange(3).repeat_interleave(40)
    numbers = torch.arange(40).repeat(3)
    shown = boxes.cut(ramps(len(rows), height, width), rows, numbers)
    whole = ramps(1, height, width)[0]
    for j, (row, number) in enumerate(zip(rows.tolist(), numbers.tolist(), strict=True)):
        top, left, tall, wide = boxes.corners[row, number].tolist()
        right = 1 - whole[1] if boxes.flips[row, number] else whole[1]
        # Beyond the middles of the outermost pixels their own value goes on.
        y = (top + tall * whole[0]).clamp(0.5 / height, 1 - 0.5 / height)
        x = (left + wide * right).clamp(0.5 / width, 1 - 0.5 / width)
        torch.testing.assert_close(shown[j], torch.stack([y, x]), atol=1e-5, rtol=0)


def test_a_box_of_the_whole_image_is_the_image() -> None:
    images = torch.randint(256, (2, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = Boxes(torch.tensor([0.0, 0, 1, 1]).expand(2, 1, 4), torch.tensor([[False], [True]]))
    shown = boxes.cut(images, torch.arange(2), torch.zeros(2).long())
    torch.testing.assert_close(shown, torch.stack([images[0], images[1].flip(2)]).float(), atol=1e-3, rtol=0)


@given(
    digest=st.integers(-(2**63), 2**63 - 1),
    count=st.integers(1, 30),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: (min(pair), max(pair))),
)
def test_boxes_lie_in_the_image_and_have_the_area_and_the_ratio_asked_for(
    digest: int, count: int, scale: tuple[float, float]
) -> None:
    boxes = Boxes.draw(torch.tensor([digest]), count, scale, mirrored=True)
    top, left, height, width = boxes.corners[0].unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 1 + 1e-6).all()
    assert (left + width <= 1 + 1e-6).all()
    whole_sides = (height < 1) & (width < 1)
    area, ratio = (height * width)[whole_sides], (width / height)[whole_sides]
    assert ((area >= scale[0] - 1e-5) & (area <= scale[1] + 1e-5)).all()
    assert ((ratio >= 0.75 - 1e-5) & (ratio <= 4 / 3 + 1e-5)).all()


def test_an_images_boxes_depend_on_its_digest_alone() -> None:
    digests = torch.randint(-(2**63), 2**63 - 1, (500,), generator=torch.Generator().manual_seed(1))
    boxes = Boxes.draw(digests, 16, (0.35, 1.0), mirrored=True)
    alone = Boxes.draw(digests[7:8], 9, (0.35, 1.0), mirrored=True)
    assert torch.equal(boxes.corners[7, :9], alone.corners[0])
    assert torch.equal(boxes.flips[7, :9], alone.flips[0])
    assert len(boxes.corners.flatten(0, 1).unique(dim=0)) == 8000
    assert 0.47 < boxes.flips.float().mean() < 0.53
    assert not Boxes.draw(digests, 16, (0.35, 1.0), mirrored=False).flips.any()
    # Uniform, and the numbers of a box do not follow from each other.
    drawn = boxes.corners.flatten(0, 1).double()
    places = drawn[:, :2] / (1 - drawn[:, 2:]).clamp_min(1e-9)
    inside = (drawn[:, 2:] < 0.95).all(dim=1)
    assert abs(float(places[inside].mean()) - 0.5) < 0.02
    assert abs(float(torch.corrcoef(places[inside].T)[0, 1])) < 0.05


def test_settings_choose_the_kind_of_views(recipe: Callable[..., Recipe]) -> None:
    shifted, boxes = recipe(crop_padding=2), recipe(crop_padding=0, views=5, scale=(0.5, 1.0))
    assert make_views(shifted, None) == ShiftedCrops(padding=2, mirrored=True)
    assert count_views(shifted) == 50
    assert make_views(boxes, torch.arange(3)).count == count_views(boxes) == 5
    with pytest.raises(ValueError, match=r"5.* digests"):
        make_views(boxes, None)
