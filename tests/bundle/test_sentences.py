"""What is said of int8 is what its figures deserve."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from igkd_hpo.bundle.contents import Expected, Figures, Quantisation, Record
from igkd_hpo.bundle.measuring import draw_training_images
from igkd_hpo.bundle.sentences import chance_of, int8_in_words

EXPECTED = Expected(validation_accuracy=0.9, runs=1, low=0.8, high=1.0, seed=0, basis="one run")


def figures(*, images: int | None = 70, lost: int = 0, gained: int = 0, latency: float = 1.0) -> Figures:
    return Figures(
        validation_accuracy=0.9, test_agreement=1, test_images=70, largest_logit_difference=0, latency_ms=latency,
        latency_ms_p95=latency, bytes=1000, validation_images=images, lost=None if images is None else lost,
        gained=None if images is None else gained,
    )  # fmt: skip


def said(int8: Figures, *ways: Quantisation) -> list[str]:
    record = Record(
        study="tiny", trial=0, created="today", files={}, expected=EXPECTED, opset=20, onnx=figures(), int8=int8,
        quantisations=ways, versions={},
    )  # fmt: skip
    return int8_in_words(record)


def test_the_chance_of_an_uneven_split_is_that_of_mcnemar() -> None:
    assert chance_of(0, 0) == 1
    assert chance_of(1, 0) == 1  # one coin that falls on either side
    assert chance_of(6, 0) == pytest.approx(2 / 2**6)
    assert chance_of(0, 6) == chance_of(6, 0)
    assert chance_of(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)
    half = sum(math.comb(12, k) for k in range(4)) / 2**12
    assert chance_of(9, 3) == pytest.approx(2 * half)


def test_one_image_of_70_is_no_loss() -> None:
    (line,) = said(figures(lost=1))
    assert "of 70 validation images 1 " in line
    assert "p = 1.00" in line
    assert "loss" not in line


def test_a_loss_beyond_chance_is_told_with_the_remedy() -> None:
    (line,) = said(figures(images=500, lost=12, gained=1))
    assert "of 500 validation images 12 " in line
    assert "loss" in line
    assert line.endswith("use model.onnx")
    (line,) = said(figures(images=500, lost=1, gained=12))
    assert "loss" not in line


def test_a_slower_file_is_told_with_both_figures() -> None:
    *_, line = said(figures(latency=1.5))
    assert "1.500 ms against 1.000 ms" in line
    assert len(said(figures(latency=1.0))) == 1
    assert len(said(figures(latency=0.5))) == 1


def test_the_way_that_is_kept_is_told_beside_the_others() -> None:
    ways = [
        Quantisation(weights=weights, activations="min-max", calibrated_on=512, agreement=share, images=300, kept=kept)
        for weights, share, kept in (("per tensor", 0.91, False), ("per channel", 0.97, True))
    ]
    first, *_ = said(figures(), *ways)
    assert first.index("per channel") < first.index("97.00 %") < first.index("91.00 % per tensor")


def test_a_bundle_from_before_anything_was_counted_says_nothing_of_it() -> None:
    assert said(figures(images=None)) == []


@pytest.mark.parametrize(("count", "calibrates", "judges"), [(2000, 512, 512), (700, 350, 350), (3, 1, 2), (2, 1, 1)])
def test_no_image_calibrates_and_judges(count: int, calibrates: int, judges: int) -> None:
    images = torch.arange(count, dtype=torch.int32).reshape(-1, 1, 1, 1)
    assets = SimpleNamespace(dataset=SimpleNamespace(train_images=images))
    first, second = draw_training_images(assets)  # type: ignore[arg-type]
    assert (len(first), len(second)) == (calibrates, judges)
    assert len(np.union1d(first, second)) == calibrates + judges
    if count == 2000:  # the first hundred of them are from everywhere, whatever order the classes are in
        assert (first[:100] < 1000).sum() == pytest.approx(50, abs=20)
