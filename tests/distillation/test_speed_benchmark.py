"""The trainings that benchmarks time, which only a machine that measures would build otherwise."""

from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_speed_benchmark_times_a_training_of_kd_and_ig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)  # as for a script there
    recipe = import_module("speed").make_training(32, 8, torch.device("cpu"), 16).recipe
    assert recipe.number("alpha") == 0.9
    assert recipe.number("overlay_probability") == 0.1


@pytest.mark.parametrize("store", ["arrays", "jpeg"])
def test_the_benchmark_of_photographs_trains_an_epoch(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    photos = import_module("photos")
    files = photos.make_files(tmp_path, 20, (64, 48))
    assert photos.ours(Namespace(device="cpu", batch=8), files, 32, store)() == 24


def test_the_benchmark_of_attention_times_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    assert import_module("attention_table").recipe(3.0, 1).number("attention_weight") == 3
