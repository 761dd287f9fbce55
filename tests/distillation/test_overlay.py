import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.distillation.overlay import normalize_maps, overlay

seeds = st.integers(0, 10_000)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_exponent_comes_before_the_stretch_by_hand() -> None:
    # Exponent 2: (1, 2, 3, 5) -> (1, 4, 9, 25) -> minus 1, over 24: (0, 3/24, 8/24, 1).
    # The other order would give (0, 1/4, 2/4, 1)**2 = (0, 1/16, 4/16, 1).
    result = normalize_maps(torch.tensor([[[1.0, 2.0], [3.0, 5.0]]]), torch.tensor([2.0]))
    torch.testing.assert_close(result, torch.tensor([[[0.0, 3 / 24], [8 / 24, 1.0]]]))


def test_each_map_is_stretched_over_its_own_area_with_its_own_exponent() -> None:
    maps, exponents = random(0, 4, 3, 5) + 0.1, torch.tensor([1.0, 1.3, 1.7, 2.0])
    together = normalize_maps(maps, exponents)
    for i in range(4):
        powered = maps[i].double() ** exponents[i].double()
        expected = (powered - powered.min()) / (powered.max() - powered.min())
        torch.testing.assert_close(together[i].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 1e-30, 1e30])
def test_constant_map_gives_zeros(value: float) -> None:
    result = normalize_maps(torch.full((2, 4, 4), value), torch.tensor([1.0, 1.9]))
    assert torch.equal(result, torch.zeros(2, 4, 4))


@pytest.mark.parametrize("scale", [1e-35, 1e-3, 1e30])
def test_scale_of_a_map_does_not_matter(scale: float) -> None:
    maps, exponents = random(0, 2, 4, 4), torch.tensor([1.2, 2.0])
    torch.testing.assert_close(normalize_maps(maps * scale, exponents), normalize_maps(maps, exponents))


@given(
    seed=seeds,
    exponent=st.floats(1, 2),
    strength=st.floats(0, 1),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_stays_in_0_to_1(seed: int, exponent: float, strength: float, dtype: torch.dtype) -> None:
    maps = normalize_maps(random(seed, 3, 5, 4).to(dtype), torch.full((3,), exponent))
    assert maps.dtype == torch.float32
    assert maps.amin() == 0
    assert maps.amax() == 1
    pixels = (random(seed + 1, 3, 3, 5, 4) * 2 - 0.5).clamp(0, 1)  # with whole areas of exactly 0 and 1
    result = overlay(pixels, maps, torch.full((3,), strength))
    assert result.amin() >= 0
    assert result.amax() <= 1
    torch.testing.assert_close(result, (1 - strength) * pixels + strength * maps[:, None])


@given(seed=seeds)
def test_strength_0_is_the_identity_bit_for_bit_and_1_is_the_map(seed: int) -> None:
    pixels, maps = random(seed, 3, 3, 4, 4), random(seed + 1, 3, 4, 4)
    result = overlay(pixels, maps, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(result[[0, 2]], pixels[[0, 2]])
    assert torch.equal(result[1], maps[1].expand(3, 4, 4))


def test_memory_format_is_kept() -> None:
    pixels = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    result = overlay(pixels, torch.rand(2, 4, 4), torch.tensor([0.5, 0.0]))
    assert result.is_contiguous(memory_format=torch.channels_last)


MODES = ["blend", "multiply", "background"]


@pytest.mark.parametrize("mode", MODES)
@given(seed=seeds, strength=st.floats(0, 1))
def test_every_mode_stays_in_0_to_1_and_strength_0_is_the_identity_bit_for_bit(
    mode: str, seed: int, strength: float
) -> None:
    pixels = (random(seed, 4, 3, 5, 4) * 2 - 0.5).clamp(0, 1)
    pixels[3] = 1.0
    maps = normalize_maps(random(seed + 1, 4, 5, 4), torch.ones(4))
    result = overlay(pixels, maps, torch.tensor([strength, 0.0, 1.0, strength]), mode)
    assert result.amin() >= 0
    assert result.amax() <= 1
    assert torch.equal(result[1], pixels[1])


def test_multiply_by_hand() -> None:
    # Strength 0.5: a pixel of 0.8 is times 0.5 where the map is 0, 0.75 where it is 0.5, and stays where it is 1.
    result = overlay(torch.full((1, 3, 1, 3), 0.8), torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([0.5]), "multiply")
    torch.testing.assert_close(result[0, 0, 0], torch.tensor([0.4, 0.6, 0.8]))


def test_background_by_hand() -> None:
    # The mean of (0, 0.5, 1) is 0.5. Strength 0.5: half of the way there where the map is 0, none where it is 1.
    pixels = torch.tensor([0.0, 0.5, 1.0]).expand(1, 3, 1, 3).clone()
    pixels[0, 1] = 0.25  # each colour has its own mean
    result = overlay(pixels, torch.tensor([[[0.0, 0.0, 1.0]]]), torch.tensor([0.5]), "background")
    torch.testing.assert_close(result[0, 0, 0], torch.tensor([0.25, 0.5, 1.0]))
    torch.testing.assert_close(result[0, 1, 0], torch.full((3,), 0.25))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_treats_each_image_by_itself(mode: str) -> None:
    pixels, maps, strengths = random(0, 4, 3, 5, 4), random(1, 4, 5, 4), torch.tensor([0.0, 0.3, 0.7, 1.0])
    together = overlay(pixels, maps, strengths, mode)
    apart = [overlay(pixels[i : i + 1], maps[i : i + 1], strengths[i : i + 1], mode) for i in range(4)]
    assert torch.equal(together, torch.cat(apart))


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"overlay_mode .*'screen'.* blend, multiply or background"):
        overlay(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), torch.zeros(1), "screen")
