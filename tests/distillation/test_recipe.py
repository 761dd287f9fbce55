"""What hyperparameters declare of each other holds together."""

import pytest

from igkd_hpo.distillation import recipe
from igkd_hpo.distillation.hyperparameter import Hyperparameter, Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS, make_recipe, needs, plain_values, weights


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
