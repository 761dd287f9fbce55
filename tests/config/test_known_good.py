"""What may stand in known_good, and what is said of the rest."""

import pytest

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.known_good import misfits
from igkd_hpo.config.space import Value

SPACE = Hyperparameters.model_validate(
    {
        "temperature": {"type": "float", "low": 0.1, "high": 8.0, "step": 0.1},
        "alpha": 0.5,
        "overlay_probability": {"type": "categorical", "choices": (0.1, 0.2)},
        "overlay_strength": 0.5,
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1.0, "log": True},
        "batch_size": {"type": "int", "low": 16, "high": 64, "step": 16},
        "objective": {"type": "categorical", "choices": ("kd", "dist")},
    }
)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temperature": 0.3, "alpha": 0.5, "learning_rate": 1.0, "batch_size": 48, "objective": "dist"},
        {"temperature": 8, "batch_size": 64.0, "overlay_probability": 0.2},
    ],
)
def test_values_of_the_space_fit(values: dict[str, Value]) -> None:
    assert misfits(values, SPACE) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 8.05),
        ("temperature", "kd"),
        ("alpha", 0.6),
        ("overlay_probability", 0.15),
        ("learning_rate", 2.0),
        ("learning_rate", -1.0),
        ("batch_size", 40),
        ("batch_size", 16.5),
        ("objective", "dkd"),
        ("objective", 1),
        ("alhpa", 0.5),
    ],
)
def test_others_are_told_by_their_names(name: str, value: Value) -> None:
    (told,) = misfits({"overlay_probability": 0.1, name: value}, SPACE)
    assert told.startswith(f"{name} ")
