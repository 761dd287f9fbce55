"""Configurations that are known to be good, as they are written in a study file or taken from another study."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.space import Range, Value, WordChoices, shown, shown_range
from igkd_hpo.errors import did_you_mean


def _check(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Value):
        raise ValueError(f"{value!r} is neither a number nor a word; write one value")
    return value


Configuration = dict[str, Annotated[Value, PlainValidator(_check, json_schema_input_type=Value)]]


def misfits(values: Mapping[str, Value], hyperparameters: Hyperparameters) -> list[str]:
    """Say for each value that lies outside the search space what is wrong with it, by its name."""
    faults = []
    for name, value in values.items():
        if name not in Hyperparameters.model_fields:
            faults.append(f"{name} is no hyperparameter{did_you_mean(name, Hyperparameters.model_fields)}")
            continue
        setting = getattr(hyperparameters, name)
        if not isinstance(setting, Range):
            if setting != value:
                faults.append(f"{name} {shown(value)} is not {shown(setting)}, at which it is fixed")
        elif not _holds(setting, value):
            faults.append(f"{name} {shown(value)} is not {shown_range(setting)}")
    return faults


def _holds(setting: Range, value: Value) -> bool:
    if isinstance(setting, WordChoices):
        return value in setting.choices
    # Points of a grid are sums, which written numbers are not.
    return not isinstance(value, str) and math.isclose(setting.nearest(value), value, rel_tol=1e-9)
