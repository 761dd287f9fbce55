"""Reading trials from plain rows gives what Optuna's own reading gives."""

import math
from collections.abc import Iterator

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from igkd_hpo.search.history import HistoryStorage
from igkd_hpo.search.storage import SharedStorage

DISTRIBUTIONS = {
    "width": IntDistribution(1, 9, step=2),
    "alpha": FloatDistribution(0.0, 1.0),
    "objective": CategoricalDistribution(["kd", "dkd"]),
}


def trial(state: TrialState, value: float | None = None, **given: object) -> FrozenTrial:
    params = {"width": 3, "alpha": 0.25, "objective": "dkd"}
    return create_trial(state=state, value=value, params=params, distributions=DISTRIBUTIONS, **given)


@pytest.fixture
def histories(storage: SharedStorage) -> Iterator[tuple[HistoryStorage, RDBStorage]]:
    """Ours and Optuna's reading of one database, with two studies whose trials come in turn."""
    first, second = (optuna.create_study(storage=storage, study_name=name) for name in ("first", "second"))
    reported = {3: 0.5, 1: math.inf, 2: -math.inf, 4: math.nan}
    for added in (
        trial(TrialState.COMPLETE, 0.75, user_attrs={"a": [1, "x"], "b": None}, intermediate_values=reported),
        trial(TrialState.COMPLETE, math.inf, system_attrs={"fixed_params": {"alpha": 1}}),
        trial(TrialState.PRUNED, -math.inf),
        trial(TrialState.RUNNING, intermediate_values={1: 0.1}),
        create_trial(state=TrialState.WAITING),
        trial(TrialState.FAIL, user_attrs={"reason": "ä"}),
    ):
        first.add_trial(added)
        second.add_trial(trial(TrialState.COMPLETE, 0.5))
    several = optuna.create_study(storage=storage, study_name="several", directions=["minimize", "maximize"])
    several.add_trial(create_trial(values=[1.0, 2.0]))
    stock = RDBStorage(storage.url.render_as_string(hide_password=False), skip_table_creation=True)
    yield storage._backend, stock
    stock.engine.dispose()


def test_the_trials_are_those_that_optuna_reads(histories: tuple[HistoryStorage, RDBStorage]) -> None:
    for study_id in (1, 2, 3):
        for included, above in [((), -1), ((7,), -1), ((), 3), ((7,), 8), ((1, 2, 7, 9), 8), ((), 99)]:
            ours, stock = (history._get_trials(study_id, None, set(included), above) for history in histories)
            assert [facts(trial) for trial in ours] == [facts(trial) for trial in stock], (study_id, included, above)
    chosen = (TrialState.PRUNED, TrialState.WAITING)
    ours, stock = (history._get_trials(1, chosen, set(), -1) for history in histories)
    assert [trial.number for trial in ours] == [2, 4]
    assert [facts(trial) for trial in ours] == [facts(trial) for trial in stock]
    for history in histories:
        with pytest.raises(KeyError, match="Record does not exist"):
            history._get_trials(99, None, set(), -1)


def facts(trial: FrozenTrial) -> dict[str, object]:
    """Everything in it; values as text, where NaN equals itself, by epoch, since Optuna's order is the database's."""
    reported = sorted(trial.intermediate_values.items())
    return vars(trial) | {"intermediate_values": repr(reported), "order": list(trial.params)}
