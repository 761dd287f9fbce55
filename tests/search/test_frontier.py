"""The best under limits and the frontier, against a plain reading of the database."""

import json
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text

from igkd_hpo.config.controls import make_control
from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.distillation.metrics import METRICS
from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.search.best import best_trial, result
from igkd_hpo.search.confirmation_study import create_linked
from igkd_hpo.search.frontier import frontier
from igkd_hpo.search.seed_spread import seed_spread
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy
from tests.search.conftest import PINS

NAMES = ("parameters", "macs", "latency_ms")


def trial_of(
    study: SearchStudy,
    accuracy: float,
    *,
    number: int = 0,
    state: TrialState = TrialState.COMPLETE,
    alpha: float = 0.5,
    **facts: object,
) -> FrozenTrial:
    """A trial as a worker leaves it."""
    values = make_control("student", study.config.hyperparameters).hyperparameters | {"alpha": alpha}
    ended = state.is_finished() and state is not TrialState.FAIL
    trial = create_trial(
        state=state,
        value=accuracy if ended else None,
        params={"alpha": alpha} if ended else {},
        distributions={"alpha": FloatDistribution(0.0, 1.0)} if ended else {},
        intermediate_values={6: accuracy} if ended else {},
        user_attrs={"hyperparameters": values, "seed": number, "host": "here", **facts},
    )
    trial.number = number
    return trial


def classes(images: int, right: int) -> dict[str, object]:
    """The record of a validation split with two classes."""
    half = [
        {"name": name, "images": images // 2, "right": right // 2, "answered": images // 2, "mistaken_for": None}
        for name in "ab"
    ]
    return {"count": 2, "worst": half, "runs": 1}


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[SharedStorage]:
    """SQLite alone: what is read here is read through the same rows in PostgreSQL."""
    opened = open_storage(sqlite_url, create=False)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def many(make_study: Callable[..., SearchStudy]) -> SearchStudy:
    """A study with 60 trials of few accuracies and costs, so that many are equal, some not COMPLETE or not measured."""
    study, draw = make_study(), random.Random(3)
    states = [TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.FAIL]
    for number in range(40):
        facts = {name: draw.choice([10, 20, 30, 40]) for name in NAMES if draw.random() < 0.9}
        trial = trial_of(study, draw.choice([0.5, 0.6, 0.7]), number=number, state=draw.choice(states), **facts)
        study.optuna_study.add_trial(trial)
    return study


def brute_force(study: SearchStudy) -> list[tuple[float, int, dict[str, object]]]:
    """Value, number and user attributes of the COMPLETE trials, by SQL alone."""
    with study.storage.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT t.number, v.value, a.key, a.value_json FROM trials t JOIN trial_values v ON v.trial_id = "
                "t.trial_id JOIN trial_user_attributes a ON a.trial_id = t.trial_id WHERE t.state = 'COMPLETE'"
            )
        ).all()
    values = {number: value for number, value, _, _ in rows}
    facts: dict[int, dict[str, object]] = {number: {} for number in values}
    for number, _, key, written in rows:
        facts[number][key] = json.loads(written)
    return [(values[number], number, facts[number]) for number in values]


def test_the_best_under_limits_is_what_a_plain_reading_finds(many: SearchStudy) -> None:
    everything = brute_force(many)
    assert 15 < len(everything) < 40

    @given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([5, 10, 15, 20, 30, 39.5, 40, 1e9])))
    def check(under: dict[str, float]) -> None:
        within = [
            (-value, number)
            for value, number, facts in everything
            if all(name in facts and float(str(facts[name])) <= limit for name, limit in under.items())
        ]
        if within:
            assert best_trial(many, under=under).number == min(within)[1]
        else:
            with pytest.raises(NoCompletedTrial):
                best_trial(many, under=under)

    check()


def test_no_trial_beats_one_of_the_frontier_at_its_cost(many: SearchStudy) -> None:
    everything = brute_force(many)
    for cost in NAMES:
        found = frontier(many, cost)
        measured = [(float(str(facts[cost])), value, -number) for value, number, facts in everything if cost in facts]
        best = [max((value, -price, n) for price, value, n in measured if price <= limit) for limit, *_ in measured]
        expected = sorted({(-price, value, -number) for value, price, number in best})
        assert [(step.cost, step.validation_accuracy, step.trial) for step in found.steps] == expected
        assert set(found.unmeasured) == {number for _, number, facts in everything if cost not in facts}


def test_what_nothing_meets_names_the_nearest(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    added = [(0.7, 400, 100), (0.55, 250, 180), (0.6, 250, 180), (0.5, 230, 900)]
    for number, (accuracy, parameters, macs) in enumerate(added):
        study.optuna_study.add_trial(trial_of(study, accuracy, number=number, parameters=parameters, macs=macs))
    with pytest.raises(NoCompletedTrial) as refused:
        best_trial(study, under={"parameters": 200, "macs": 100})
    assert "trial 2 with 60.00 % and 250 parameters and 180 multiply-adds" in str(refused.value)
    assert "--under parameters=250 --under macs=180" in str(refused.value)
    assert best_trial(study, under={"parameters": 250, "macs": 180}).number == 2


def test_a_trial_whose_cost_is_not_known_is_told_of(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    study.optuna_study.add_trial(trial_of(study, 0.9, number=0, parameters=100))
    study.optuna_study.add_trial(trial_of(study, 0.8, number=1, parameters=100, peak_ram_kb=1.5))
    study.optuna_study.add_trial(trial_of(study, 0.95, number=2, parameters=900))  # beyond what is known
    best = best_trial(study, under={"parameters": 100, "peak_ram_kb": 2})
    assert best.number == 1
    assert len(best.remarks) == 1
    assert "trial 0 with 90.00 %" in best.remarks[0]
    assert best.remarks[0] in result(study, best)
    assert "1.5 KiB of activations" in result(study, best)
    with pytest.raises(NoCompletedTrial, match="macs"):
        best_trial(study, under={"macs": 1e9})


def test_latencies_of_several_hosts_are_told_of(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    study.optuna_study.add_trial(trial_of(study, 0.9, number=0, latency_ms=2.0))
    assert best_trial(study, under={"latency_ms": 3}).remarks == ()
    study.optuna_study.add_trial(trial_of(study, 0.8, number=1, latency_ms=9.0, host="there"))
    (remark,) = best_trial(study, under={"latency_ms": 3}).remarks
    assert "here, there" in remark


def test_a_student_without_zeros_has_as_many_parameters_that_are_not_0(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    study.optuna_study.add_trial(trial_of(study, 0.9, number=0, parameters=100))
    study.optuna_study.add_trial(trial_of(study, 0.8, number=1, parameters=100, nonzero_parameters=40))
    assert best_trial(study, under={"nonzero_parameters": 100}).number == 0
    assert best_trial(study, under={"nonzero_parameters": 50}).number == 1


def test_each_cost_has_an_own_attribute_of_a_trial(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    study.optuna_study.add_trial(trial_of(study, 0.9, number=0, **dict.fromkeys(COSTS, 7)))
    assert best_trial(study, under=dict.fromkeys(COSTS, 7)).number == 0
    for name in COSTS:
        with pytest.raises(NoCompletedTrial):
            best_trial(study, under=dict.fromkeys(COSTS, 7) | {name: 6})


def test_steps_below_the_interval_of_the_images_are_ties(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    trials = [
        trial_of(study, accuracy, number=number, alpha=number / 10, parameters=100 * (number + 1), classes=record)
        for number, accuracy in enumerate([0.80, 0.82, 0.90, 0.91])
        for record in [classes(400, round(400 * accuracy))]
    ]
    found = frontier(study, "parameters", trials)
    assert [step.told_apart for step in found.steps] == [True, False, True, False]
    assert "400 validation images" in found.intervals
    first = found.steps[0]
    assert first.low is not None
    share = 321 / 402  # one right and one wrong image more
    assert 0.80 - first.low == pytest.approx(1.959964 * 2**0.5 * (share * (1 - share) / 400) ** 0.5)


def test_of_a_thousand_classes_the_images_are_known(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    record = classes(20, 10) | {"count": 1000}
    assert frontier(study, "macs", [trial_of(study, 0.5, macs=1, classes=record)]).steps[0].low is None
    known = frontier(study, "macs", [trial_of(study, 0.5, macs=1, classes=record | {"images": 5000})])
    assert known.steps[0].low == pytest.approx(0.5 - 1.959964 * 2**0.5 * (0.25 / 5000) ** 0.5)
    for metric in METRICS.keys() - {"accuracy"}:
        balanced = make_study(name=metric.replace("_", "-"), metric=metric)
        one = trial_of(balanced, 0.5, macs=1, classes=record | {"images": 5000})
        assert frontier(balanced, "macs", [one]).steps[0].high is None


def test_repeats_tell_the_spread_between_seeds(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    values = {0.1: [0.80, 0.82, 0.84], 0.2: [0.90, 0.94], 0.3: [0.7], 0.4: [0.6, 0.6]}
    trials = [
        trial_of(study, value, number=number, alpha=alpha, parameters=number + 1)
        for number, (alpha, value) in enumerate((alpha, value) for alpha, some in values.items() for value in some)
    ]
    few = seed_spread(study, [trial for trial in trials if trial.user_attrs["hyperparameters"]["alpha"] < 0.3])
    assert few.deviation is None
    spread = seed_spread(study, trials)
    assert spread.freedom == 4
    assert (spread.trainings, spread.configurations) == (7, 3)
    assert spread.deviation == pytest.approx(((2 * 0.02**2 + 2 * 0.02**2) / 4) ** 0.5)
    assert spread.reach(trials[0]) == pytest.approx(2.776445 * 2**0.5 * spread.deviation)
    assert "7 trainings of 3 configurations" in frontier(study, "parameters", trials).intervals


def test_fresh_seeds_of_a_confirmation_tell_the_spread_without_the_chosen_trial(
    make_study: Callable[..., SearchStudy],
) -> None:
    study = make_study()
    study.optuna_study.add_trial(trial_of(study, 0.99, number=0, parameters=5))
    linked = create_linked(study.storage, study.config, "confirm", pins=PINS)
    for number, value in enumerate([0.70, 0.72, 0.74, 0.76, 0.78]):
        linked.optuna_study.add_trial(trial_of(study, value, number=1000 + number))
    spread = seed_spread(study)
    assert (spread.freedom, spread.configurations) == (4, 1)
    assert spread.deviation == pytest.approx(0.0316227766)
