"""Reading trials from plain rows gives what Optuna's own reading gives, and pruners see all that they ask for."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from igkd_hpo.search import history
from igkd_hpo.search.history import HistoryStorage
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, open_study

TRAINED = (TrialState.COMPLETE, TrialState.PRUNED)

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
            ours, stock = (storage._get_trials(study_id, None, set(included), above) for storage in histories)
            assert [facts(trial) for trial in ours] == [facts(trial) for trial in stock], (study_id, included, above)
    chosen = (TrialState.PRUNED, TrialState.WAITING)
    ours, stock = (storage._get_trials(1, chosen, set(), -1) for storage in histories)
    assert [trial.number for trial in ours] == [2, 4]
    assert [facts(trial) for trial in ours] == [facts(trial) for trial in stock]
    for storage in histories:
        with pytest.raises(KeyError, match="Record does not exist"):
            storage._get_trials(99, None, set(), -1)


def test_one_trial_is_what_optuna_reads(histories: tuple[HistoryStorage, RDBStorage]) -> None:
    ours, stock = histories
    for trial_id in range(1, 14):
        assert facts(ours.get_trial(trial_id)) == facts(stock.get_trial(trial_id))
    for storage in histories:
        with pytest.raises(KeyError, match="Record does not exist"):
            storage.get_trial(99)


def facts(trial: FrozenTrial) -> dict[str, object]:
    """Everything in it; values as text, where NaN equals itself, by epoch, since Optuna's order is the database's."""
    reported = sorted(trial.intermediate_values.items())
    return vars(trial) | {"intermediate_values": repr(reported), "order": list(trial.params)}


@pytest.mark.parametrize("seed", range(2))
def test_a_pruner_sees_every_ended_trial_wherever_and_in_whatever_order_they_end(
    storage: SharedStorage, database_url: str, seed: int
) -> None:
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "together")
    elsewhere = open_storage(database_url, create=False)
    draw = random.Random(seed)
    running: list[int] = []
    for _ in range(50):
        side = draw.choice([storage, elsewhere])
        match draw.choice(["start", "start", "end", "read all"]):
            case "start":
                running.append(side.create_new_trial(study_id))
                side.set_trial_system_attr(running[-1], "completed_rung_0", draw.random())
            case "read all":
                storage.get_all_trials(study_id)
            case "end" if running:
                trial_id = running.pop(draw.randrange(len(running)))
                side.set_trial_intermediate_value(trial_id, 1, draw.random())
                state = draw.choice([*TRAINED, TrialState.FAIL])
                side.set_trial_state_values(trial_id, state, None if state is TrialState.FAIL else [draw.random()])
        if draw.random() < 0.5:
            seen = storage.get_all_trials(study_id, deepcopy=False, states=TRAINED)
            there = RDBStorage._get_trials(storage._backend, study_id, TRAINED, set(), -1)
            assert [facts(trial) for trial in seen] == [facts(trial) for trial in there]
            compared = storage.get_trials_to_compare(study_id)
            there = RDBStorage._get_trials(storage._backend, study_id, None, set(), -1)
            assert [compared_by(trial) for trial in compared] == [compared_by(trial) for trial in there]
    elsewhere.engine.dispose()


def compared_by(trial: FrozenTrial) -> tuple[object, ...]:
    """What successive halving compares trials by."""
    return trial.number, trial.state, trial.system_attrs


def test_of_what_runs_a_damaged_rung_spoils_its_own_trial_alone(
    make_study: Callable[..., SearchStudy], worker: Worker
) -> None:
    study = make_study(pruner={"name": "successive_halving", "grace_period": 1, "reduction_factor": 2})
    leases = Leases(study)
    good, damaged, new = (claim for _ in range(3) if isinstance(claim := leases.claim(worker), Claim))
    for claim in (good, damaged):
        leases.report(claim, epoch=1, accuracy=0.5)
    study.storage.set_trial_system_attr(damaged.trial_id, "completed_rung_0", "high")
    assert leases.report(new, epoch=1, accuracy=0.6) is Verdict.GO_ON
    seen = {trial.number: trial for trial in study.storage.get_trials_to_compare(study.study_id)}
    assert seen[damaged.number].state is TrialState.FAIL
    assert seen[good.number].system_attrs["completed_rung_0"] == 0.5


def test_a_report_reads_its_own_trial_and_no_other_that_runs(
    make_study: Callable[..., SearchStudy], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(make_study(pruner={"name": "percentile", "grace_period": 0}))
    claims = [claim for _ in range(4) if isinstance(claim := leases.claim(worker), Claim)]
    read = numbers_read(monkeypatch)
    for claim in claims:
        leases.report(claim, epoch=1, accuracy=0.5)
    assert read == [claim.number for claim in claims] == [0, 1, 2, 3]


def test_a_claim_reads_once_what_runs_and_what_others_have_ended(
    make_study: Callable[..., SearchStudy], worker: Worker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(make_study(controls=(), n_trials=9))
    claims = [claim for _ in range(6) if isinstance(claim := leases.claim(worker), Claim)]
    leases.complete(claims[0], 0.5, {})
    last = leases.claim(worker)
    assert isinstance(last, Claim)
    elsewhere = Leases(open_study(open_storage(database_url, create=False), "digits"))
    for claim in (*claims[2:4], last):
        assert elsewhere.complete(claim, 0.5, {})
    read = numbers_read(monkeypatch)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    ended, running = [2, 3, last.number], [1, 4, 5]
    assert [number for number in read if number != claim.number] == ended + running


def numbers_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the trials that are read from now on."""
    read: list[int] = []
    plain = history._Queries.read

    def noted(*arguments: Any, **values: Any) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = plain(*arguments, **values)
        read.extend(trial.number for trial in trials)
        return trials

    monkeypatch.setattr(history._Queries, "read", noted)
    return read


def test_attributes_written_at_once_replace_and_add(storage: SharedStorage) -> None:
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "attributes")
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_user_attrs(trial_id, {"a": 1, "b": [None]})
    storage.set_trial_user_attrs(trial_id, {})
    storage.set_trial_user_attrs(trial_id, {"b": {"c": "d"}, "e": 0.5})
    assert storage.get_trial(trial_id).user_attrs == {"a": 1, "b": {"c": "d"}, "e": 0.5}
