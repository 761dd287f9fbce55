"""The training that benchmarks/speed.py times, which only a machine that measures would build otherwise."""

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
