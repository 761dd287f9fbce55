"""The study file's ranges in Optuna, samplers that do not repeat each other, and controls inside the ranges."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.sampler import Sampler
from igkd_hpo.config.study import ControlName
from igkd_hpo.search.space import as_setting, distributions
from igkd_hpo.search.suggest import make_sampler

SAMPLER: TypeAdapter[Sampler] = TypeAdapter(Sampler)
FIXED = {"temperature": 4.0, "alpha": 0.5, "overlay_probability": 0.1, "overlay_strength": 0.5, "learning_rate": 0.1}

SPACE = Hyperparameters.model_validate(FIXED)


def test_ranges_become_distributions_in_the_files_order() -> None:
    hyperparameters = Hyperparameters.model_validate(
        FIXED
        | {
            "width": {"type": "categorical", "choices": (0.5, 1.0)},
            "layers_removed": {"type": "int", "low": 0, "high": 10, "step": 4},
            "batch_size": {"type": "int", "low": 16, "high": 256, "log": True},
            "learning_rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
            "overlay_strength": {"type": "float", "low": 0.1, "high": 0.45, "step": 0.1},
            "alpha": {"type": "int", "low": 0, "high": 1},
        }
    )
    found = distributions(hyperparameters)
    assert found == {
        "alpha": IntDistribution(0, 1),
        "overlay_strength": FloatDistribution(0.1, 0.4, step=0.1),
        "learning_rate": FloatDistribution(0.001, 1.0, log=True),
        "batch_size": IntDistribution(16, 256, log=True),
        "layers_removed": IntDistribution(0, 8, step=4),
        "width": CategoricalDistribution((0.5, 1.0)),
    }
    assert list(found) == ["alpha", "overlay_strength", "learning_rate", "batch_size", "layers_removed", "width"]
    searched = hyperparameters.searched()
    assert as_setting(searched["width"], 1) == 1.0
    assert isinstance(as_setting(searched["width"], 1), float)
    assert isinstance(as_setting(searched["alpha"], 1.0), int)


@given(low=st.integers(0, 50), steps=st.integers(0, 40), rest=st.integers(0, 9), width=st.sampled_from([1, 2, 5, 10]))
def test_a_grid_ends_on_its_last_point(low: int, steps: int, rest: int, width: int) -> None:
    high = low + steps * width + rest % width
    settings = {"alpha": {"type": "float", "low": low / 1000, "high": high / 1000, "step": width / 1000}}
    found = distributions(Hyperparameters.model_validate(FIXED | settings))["alpha"]  # a warning would be an error
    assert isinstance(found, FloatDistribution)
    assert found.high == pytest.approx((low + steps * width) / 1000)


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
def test_samplers_repeat_themselves_and_nobody_else(name: str) -> None:
    def first_point(seed: int, number: int) -> float:
        sampler = make_sampler(SAMPLER.validate_python({"name": name, "seed": seed}), SPACE, number)
        return optuna.create_study(sampler=sampler).ask().suggest_float("alpha", 0, 1)

    assert first_point(0, 3) == first_point(0, 3)
    assert len({first_point(seed, number) for seed in range(5) for number in range(5)}) == 25


@pytest.mark.parametrize(
    ("name", "defined"),
    [
        ("student", (0.0, 2.0, 0.0, 0.0)),
        ("kd", (0.9, 4.0, 0.0, 0.0)),
        ("ig", (0.0, 2.0, 0.1, 0.0)),
        ("kd_ig", (0.9, 4.0, 0.1, 0.0)),
        ("at", (0.0, 2.0, 0.0, 16.0)),
        ("kd_at", (0.9, 4.0, 0.0, 16.0)),
        ("ig_at", (0.0, 2.0, 0.1, 16.0)),
        ("kd_ig_at", (0.9, 4.0, 0.1, 16.0)),
        ("paper", (0.01, 2.5, 0.1, 0.0)),
    ],
)
def test_controls(name: ControlName, defined: tuple[float, ...]) -> None:
    keys = ("alpha", "temperature", "overlay_probability", "attention_weight")
    expected = dict(zip(keys, defined, strict=True)) | {"overlay_strength": 0.5}
    hyperparameters = Hyperparameters.model_validate(
        FIXED
        | {
            "temperature": {"type": "float", "low": 1.0, "high": 3.0},
            "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
            "overlay_probability": {"type": "float", "low": 0.2, "high": 0.4},
            "width": {"type": "categorical", "choices": (0.25, 0.5, 1.0)},
        }
    )
    control = make_control(name, hyperparameters)
    rest = {
        "learning_rate": pytest.approx(0.1),
        "width": 0.5,
        "weight_decay": 5e-4,
        "batch_size": 128,
        "layers_removed": 5,
    }
    unwritten = {
        key: field.default
        for key, field in Hyperparameters.model_fields.items()
        if key not in hyperparameters.model_fields_set
    }
    assert control.hyperparameters == unwritten | rest | expected
    assert control.params == {
        "temperature": min(expected["temperature"], 3.0),
        "overlay_probability": 0.2,
        "learning_rate": pytest.approx(0.1),
        "width": 0.5,
    }


def test_a_control_leaves_out_what_it_is_not_named_for() -> None:
    """Whatever else a study searches, plain training is plain training."""
    weight = {"type": "float", "low": 0.0, "high": 8.0}
    searched = FIXED | {
        "objective": {"type": "categorical", "choices": ("dist", "r2kd")},
        "attention_weight": weight,
        "attention_depths": "stages",
        "hint_weight": weight,
        "teacher_tail_weight": weight,
        "attribution_weight": weight,
        "init": {"type": "categorical", "choices": ("teacher_prefix", "random")},
    }
    control = make_control("kd", Hyperparameters.model_validate(searched))
    plain = make_control("kd", Hyperparameters.model_validate(FIXED))
    assert control.hyperparameters == plain.hyperparameters
    assert control.params["objective"] == "dist", "the sampler never sees a word outside its space"
