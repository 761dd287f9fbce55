"""Strata in one process: what a sampler and a pruner see from a stratum, and what is told of each."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from igkd_hpo.search.best import best_trial, result
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.lease import Claim, Idle, Leases, Verdict, Worker
from igkd_hpo.search.note import study_note
from igkd_hpo.search.redraw import TooLarge
from igkd_hpo.search.status import study_status
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.strata import next_stratum, see_from, strata_in_words
from tests.search.test_strata import ENDS, STRATA, MakeStudy, claimed, fitting, make_sized, measure


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[SharedStorage]:
    opened = open_storage(sqlite_url, create=True)
    yield opened
    opened.engine.dispose()


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "tpe", "n_startup_trials": 5},
        {"name": "gp", "n_startup_trials": 5},
        {"name": "qmc"},
        {"name": "random"},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_every_sampler_draws_small_students_though_large_ones_are_better(
    make_study: MakeStudy, worker: Worker, sampler: dict[str, object]
) -> None:
    study = make_sized(make_study, n_trials=9, sampler=sampler)
    leases = Leases(study)
    known = 1.0  # the smallest width that was too large for the first stratum
    while isinstance(claim := leases.claim(worker), Claim):
        width = float(claim.hyperparameters["width"])
        if claim.stratum == STRATA.each[0]:
            assert width < known, "drawn again, and one width in nine fits"
        if measure(leases, claim):
            assert leases.complete(claim, width, {})
        elif claim.stratum == STRATA.each[0]:
            known = width
    assert study_status(study).strata[0].finished >= 3
    assert study.counts().infeasible <= 12
    ended = [trial for trial in study.trials() if trial.state is TrialState.COMPLETE]
    assert Counter(trial.user_attrs["stratum"] for trial in ended) == dict.fromkeys(ENDS, 3)


def trial_with(parameters: int | None, *, state: TrialState = TrialState.COMPLETE, **attrs: float) -> Any:
    return create_trial(
        state=state,
        value=0.5 if state is TrialState.COMPLETE else None,
        user_attrs={} if parameters is None else {"parameters": parameters},
        system_attrs={f"constraints:{name}": value for name, value in attrs.items()},
    )


def test_what_is_too_large_for_a_stratum_is_beyond_its_limit_there_alone() -> None:
    small, large = trial_with(100, stratum=-0.5, macs=-0.1), trial_with(400, stratum=-0.2, macs=-0.1)
    unknown, running = trial_with(None), trial_with(900, state=TrialState.RUNNING)
    seen = see_from(STRATA.each[0], [small, large, unknown, running])
    assert [is_infeasible(trial) for trial in seen] == [False, True, False, False]
    assert seen[1].constraints == {"stratum": 1.0, "macs": -0.1}
    assert large.constraints["stratum"] == -0.2, "those of the storage are shared"
    assert not any(map(is_infeasible, see_from(STRATA.each[2], [small, large, unknown, running])))


def test_what_was_not_trained_for_it_was_too_large_says_nothing_where_it_fits() -> None:
    untrained = trial_with(400, state=TrialState.PRUNED, stratum=1.0)
    too_slow = trial_with(400, state=TrialState.PRUNED, stratum=1.0, latency_ms=0.5)
    assert see_from(STRATA.each[1], [untrained]) == []
    assert len(see_from(STRATA.each[0], [untrained])) == 1
    assert len(see_from(STRATA.each[1], [too_slow])) == 1


def test_a_student_that_is_nowhere_smaller_than_one_that_is_too_large_is_too_large(make_study: MakeStudy) -> None:
    settings = make_study().config.hyperparameters
    known = {"architecture": "mobilenet_v2", "layers_removed": 10, "width": 0.5, "stages_removed": 0}
    trial = trial_with(400)
    trial.user_attrs["hyperparameters"] = known
    too_large = TooLarge(STRATA.each[0], [trial, trial_with(900), trial_with(100)], settings)
    fixed = settings.fixed()
    for changed, expected in (
        ({}, True),
        ({"width": 0.6}, True),
        ({"layers_removed": 9, "width": 0.6}, True),
        ({"layers_removed": 11, "width": 0.6}, False),
        ({"width": 0.4}, False),
        ({"architecture": "timm/lcnet_050"}, False),
    ):
        assert (fixed | known | changed in too_large) == expected, changed
    assert fixed | known not in TooLarge(STRATA.each[1], [trial], settings)


def test_a_stratum_that_nothing_falls_into_leaves_its_turns_to_the_others(
    make_study: MakeStudy, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igkd_hpo.search.stopping.MOST_INFEASIBLE", 4)
    study = make_sized(make_study, n_trials=5)
    leases = Leases(study)
    for _ in range(4):
        claim = claimed(leases, worker)
        assert claim.stratum == STRATA.each[0]
        assert leases.annotate(claim, {"parameters": 999}, excess={"stratum": 4.0})
        assert leases.prune(claim, "not trained: too large", {})
    ends = []
    while isinstance(claim := leases.claim(worker), Claim):
        assert claim.stratum is not None
        ends.append(claim.stratum.end)
        assert leases.annotate(claim, {"parameters": 150}, excess={"stratum": -0.1})
        assert leases.complete(claim, 0.5, {})
    assert claim is Idle.FINISHED
    assert ends == [500.0, 1000.0, 500.0, 1000.0, 500.0]


def test_a_study_ends_when_no_stratum_is_reached(
    make_study: MakeStudy, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igkd_hpo.search.stopping.MOST_INFEASIBLE", 2)
    study = make_sized(make_study)
    leases, ends = Leases(study), []
    while isinstance(claim := leases.claim(worker), Claim):
        assert claim.stratum is not None
        ends.append(claim.stratum.end)
        assert leases.annotate(claim, {"parameters": 9999}, excess={"stratum": 1.0})
        assert leases.prune(claim, "not trained: too large", {})
    assert claim is Idle.STOPPED
    assert ends == [200.0, 200.0, 500.0, 500.0, 1000.0, 1000.0]
    assert "drawn for each stratum" in str(study.read().stopped)
    make_sized(make_study)  # launched again
    assert claimed(leases, worker).stratum == STRATA.each[0]


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "median", "grace_period": 0},
        {"name": "successive_halving", "grace_period": 1, "reduction_factor": 2},
        {"name": "hyperband", "grace_period": 1, "reduction_factor": 2},
    ],
    ids=lambda pruner: str(pruner["name"]),
)
def test_a_trial_is_pruned_among_students_of_its_size_alone(
    make_study: MakeStudy, worker: Worker, pruner: dict[str, object]
) -> None:
    study = make_sized(make_study, n_trials=100, pruner=pruner, controls=())
    leases = Leases(study)

    def run(width: float, accuracy: float) -> tuple[Claim, list[Verdict]]:
        study.optuna_study.enqueue_trial({"width": width})
        claim = claimed(leases, worker)
        assert leases.annotate(claim, {"parameters": round(1000 * width)})
        verdicts = [leases.report(claim, epoch=epoch, accuracy=accuracy) for epoch in range(1, 6)]
        if Verdict.PRUNE in verdicts:
            assert leases.prune(claim, leases.why_pruned(claim), {})
        else:
            assert leases.complete(claim, accuracy, {})
        return claim, verdicts

    for _ in range(12):  # of which Hyperband puts some into each of its brackets
        run(0.9, 0.9)
    small = [run(0.1, 0.3 + 0.01 * number) for number in range(8)]
    assert all(set(verdicts) == {Verdict.GO_ON} for _, verdicts in small), "the better of few, though far below 90 %"
    if pruner["name"] != "median":  # which asks for 5 that are complete
        pruned = [run(0.1, 0.1 - 0.01 * number) for number in range(4)]
        assert any(Verdict.PRUNE in verdicts for _, verdicts in pruned)
    worst = run(0.1, 0.01)
    assert Verdict.PRUNE in worst[1]
    reason = str(study.trials()[worst[0].number].user_attrs["reason"])
    assert reason.endswith(", among students up to 200 parameters")
    assert "of 20 " not in reason


def test_what_there_is_of_each_size_is_told(make_study: MakeStudy, worker: Worker) -> None:
    study = make_sized(make_study, n_trials=6)
    leases = Leases(study)
    for number in range(4):
        claim = fitting(leases, worker)
        facts = {"parameters": (150, 180, 400, 2000)[number], "seed": number}
        assert leases.complete(claim, 0.5 + number / 10, facts)
    found = study_status(study).strata
    assert [(one.end, one.finished, one.best_trial and one.best_accuracy) for one in found] == [
        (200.0, 2, 0.6),
        (500.0, 1, 0.7),
        (1000.0, 0, None),
    ]
    said = strata_in_words(found, "accuracy")
    assert said.startswith("up to 200 parameters: 2 trials, best 60.00 % (#")
    assert said.endswith("up to 1,000: 0 trials")
    best = best_trial(study)
    assert f"strata: {said}" in result(study, best).splitlines()
    assert "up to 200 parameters, up to 500 parameters, up to 1,000 parameters" in study_note(study)
    assert exported_study(study, best).strata is None


def test_the_fewest_drawn_are_next_whatever_size_they_came_out_at() -> None:
    def drawn(end: float, **attrs: float) -> Any:
        trial = trial_with(100, **attrs)
        trial.user_attrs["stratum"] = end
        return trial

    trials = [drawn(200.0), drawn(500.0), drawn(500.0), trial_with(900)]
    assert next_stratum(STRATA, trials) == STRATA.each[2]
    assert next_stratum(STRATA, [*trials, drawn(1000.0)]) == STRATA.each[0]
    assert next_stratum(STRATA, [*trials, drawn(1000.0, stratum=0.1)]) == STRATA.each[2]
    assert next_stratum(STRATA, trials, [STRATA.each[2]]) == STRATA.each[0]
    assert next_stratum(STRATA, trials, STRATA.each) == STRATA.each[2]
