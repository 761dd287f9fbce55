"""What hyperparameters declare of each other holds together."""

from typing import Any

import pytest

from igkd_hpo.distillation import recipe
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, make_recipe, needs, plain_values, weights, without_effect


def test_what_is_needed_is_there() -> None:
    for name, known in HYPERPARAMETERS.items():
        asked = [need for need in known.needs if not isinstance(need, Role)]
        assert set(asked) <= HYPERPARAMETERS.keys() - {name}, name
        assert bool(needs(name)) >= bool(known.needs), name


def test_what_asks_for_a_teacher_can_be_turned_off() -> None:
    asking = [name for role in (Role.LOGITS, Role.MAPS, Role.FEATURES) for name in weights(role)]
    assert {plain_values()[name] for name in asking} == {0.0}
    assert needs("alignment") == tuple(name for name in HYPERPARAMETERS if name in asking)


def test_a_recipe_without_one_of_its_values_names_it() -> None:
    with pytest.raises(KeyError, match="epochs"):
        make_recipe(plain_values() | {"temperature": 1.0, "overlay_strength": 0.0})


def test_a_hyperparameter_declared_twice_and_not_alike_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"width": Hyperparameter("Of a term.", Role.TRAINING)}
    monkeypatch.setattr(recipe.TERMS["hint"], "HYPERPARAMETERS", other)
    with pytest.raises(ValueError, match="width"):
        recipe._declared()


@pytest.mark.parametrize(
    ("changed", "idle", "acting"),
    [
        ({}, {"layers_removed", "width", "dkd_beta", "body_rate"}, {"stages_removed", "temperature", "alpha"}),
        ({"architecture": "mobilenet_v2"}, {"stages_removed"}, {"layers_removed", "width"}),
        ({"architecture": "torchvision/mobilenet_v2"}, {"layers_removed"}, {"stages_removed", "width"}),
        ({"architecture": "torchvision/resnet18"}, {"layers_removed", "width"}, {"stages_removed"}),
        ({"architecture": "own:net"}, {"layers_removed", "width", "stages_removed"}, {"architecture"}),
        ({"init": "pretrained"}, set(), {"body_rate", "init"}),
        ({"objective": "dkd"}, {"foster_beta", "frozen_blocks"}, {"dkd_beta"}),
        ({"objective": "foster"}, {"dkd_beta", "rtk_keys", "osakd_neighbors"}, {"foster_beta", "labels_alone"}),
        ({"architecture": "mobilenet_v2", "init": "teacher_prefix"}, {"body_rate"}, {"frozen_blocks"}),
        ({"alpha": 0.0}, {"labels_alone"}, {"rtk_weight", "osakd_weight"}),
        (
            {"alpha": 0.0, "osakd_weight": 1.0, "rtk_weight": 1.0},
            set(),
            {"labels_alone", "osakd_neighbors", "rtk_keys"},
        ),
        ({"alpha": 0.0}, {"temperature", "objective"}, {"alpha", "learning_rate"}),
        ({"overlay_probability": 0.0}, {"overlay_mode", "overlay_strength"}, {"overlay_probability"}),
    ],
)
def test_what_changes_nothing_is_known(changed: dict[str, Any], idle: set[str], acting: set[str]) -> None:
    values = {name: one.default for name, one in HYPERPARAMETERS.items()} | {
        "temperature": 4.0, "alpha": 0.5, "overlay_probability": 0.5, "overlay_strength": 0.5, "learning_rate": 0.1,
        "architecture": "timm/lcnet_050", **changed,
    }  # fmt: skip
    found = set(without_effect(values))
    assert idle <= found
    assert not acting & found
