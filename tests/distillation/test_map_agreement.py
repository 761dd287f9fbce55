"""Agreement of maps: the brightest tenth, and pairs that do not belong together."""

import pytest
import torch

from igkd_hpo.distillation.map_agreement import shuffled, top_overlap


def test_the_brightest_tenth_by_hand() -> None:
    """Twenty pixels have two places: maps that share both, one and none of them."""
    first = torch.arange(20.0).reshape(1, 4, 5)
    same, one, none = first.clone(), first.clone(), -first
    same[0, 3, 3], same[0, 3, 4] = 19, 18  # the same two, the other way round
    one[0, 0, 0] = 100
    overlap = top_overlap(first.expand(3, 4, 5), torch.cat([same, one, none]))
    assert overlap.tolist() == [1.0, 0.5, 0.0]
    assert overlap.dtype == torch.float64


def test_equally_bright_pixels_share_the_places_that_are_left() -> None:
    """Of 20 pixels one is brightest, and four share the second place: a quarter of a place each."""
    ties = torch.zeros(1, 4, 5)
    ties[0, 0, 0], ties[0, 1, :4] = 3, 2
    sharp = torch.zeros(1, 4, 5)
    sharp[0, 0, 0], sharp[0, 1, 0] = 2, 1
    assert top_overlap(ties, sharp).item() == pytest.approx((1 + 0.25) / 2)
    assert top_overlap(ties, ties).item() == 1


def test_a_constant_map_has_the_overlap_of_chance_and_agrees_with_itself() -> None:
    constant, map_ = torch.full((1, 10, 10), 7.0), torch.rand(1, 10, 10, generator=torch.Generator().manual_seed(0))
    assert top_overlap(constant, map_).item() == pytest.approx(0.1)
    assert top_overlap(constant, 0 * constant).item() == pytest.approx(1)


def test_a_map_of_few_pixels_has_one_that_is_brightest() -> None:
    maps, others = torch.tensor([[[1.0, 2.0]], [[2.0, 1.0]]]), torch.tensor([[[1.0, 3.0]], [[1.0, 3.0]]])
    assert top_overlap(maps, others).tolist() == [1, 0]


@pytest.mark.parametrize("count", [2, 3, 50])
def test_no_image_keeps_its_own_map(count: int) -> None:
    others = shuffled(count, torch.Generator().manual_seed(count))
    assert sorted(others.tolist()) == list(range(count))
    assert not (others == torch.arange(count)).any()
