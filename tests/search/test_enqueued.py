"""What people enqueue with Optuna runs, and counts; on both databases."""

from collections.abc import Callable

import pytest
from optuna.trial import TrialState

from igkd_hpo.engines.open_studies import OpenStudies
from igkd_hpo.engines.worker import Job
from igkd_hpo.search.enqueued import enqueued_trials, remark_on
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings

MakeStudy = Callable[..., SearchStudy]
RATES = (0.05, 0.1, 0.2, 0.3, 0.4)


def run_all(study: SearchStudy, worker: Worker) -> list[Claim]:
    leases, claims = Leases(study), []
    while isinstance(claim := leases.claim(worker), Claim):
        claims.append(claim)
        assert leases.complete(claim, 0.5, {})
    assert claim is Idle.FINISHED
    return claims


def test_what_is_enqueued_runs_first_and_counts(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=4)
    for rate in RATES[:2]:
        study.optuna_study.enqueue_trial({"learning_rate": rate})
    claims = run_all(study, worker)
    assert [claim.hyperparameters["learning_rate"] for claim in claims[:2]] == [0.05, 0.1]
    assert len(claims) == 4
    assert study.read().n_trials == 4


@pytest.mark.parametrize("before", [0, 2, 4])
def test_what_is_enqueued_is_never_thrown_away(make_study: MakeStudy, worker: Worker, before: int) -> None:
    study = make_study(n_trials=4, controls=("student",))
    leases = Leases(study)
    for _ in range(before):
        claim = leases.claim(worker)
        assert isinstance(claim, Claim)
        leases.complete(claim, 0.5, {})
    for rate in RATES:
        study.optuna_study.enqueue_trial({"learning_rate": rate})
    run_all(study, worker)
    rates = [t.params["learning_rate"] for t in study.trials() if "fixed_params" in t.system_attrs]
    assert rates[-len(RATES) :] == list(RATES)
    counts = study.counts()
    assert (counts.fail, counts.waiting) == (0, 0)
    assert counts.finished == study.read().n_trials == max(before, 1) + len(RATES)


def test_one_that_was_given_back_runs_again(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=1)
    run_all(study, worker)
    study.optuna_study.enqueue_trial({"learning_rate": 0.1})
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    assert leases.release(claim, "stopped", counted=False, epochs_gained=False)
    (again,) = run_all(study, worker)
    assert again.number == claim.number


def test_values_that_cannot_be_trained_make_no_room_for_others(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=1)
    run_all(study, worker)
    study.optuna_study.enqueue_trial({"learning_rate": -1.0})
    leases = Leases(study)
    assert leases.claim(worker) is Idle.WAIT
    assert leases.claim(worker) is Idle.FINISHED
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.read().n_trials == 1


def test_a_worker_without_a_name_runs_what_is_enqueued_in_a_finished_study(
    make_study: MakeStudy, worker: Worker
) -> None:
    study = make_study(n_trials=1)
    run_all(study, worker)
    study.optuna_study.enqueue_trial({"learning_rate": 0.1})
    served = OpenStudies(study.storage, Settings.resolve(), worker, prepare=lambda _: None, on_message=lambda _: None)
    assert isinstance(served.claim(), Job)


def test_to_see_that_nothing_is_left_takes_one_reading(
    make_study: MakeStudy, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(n_trials=1)
    run_all(study, worker)
    served = OpenStudies(study.storage, Settings.resolve(), worker, prepare=lambda _: None, on_message=lambda _: None)
    read, plain = [], SearchStudy.trials
    monkeypatch.setattr(SearchStudy, "trials", lambda study: read.append(study.name) or plain(study))
    assert served.claim() is Idle.WAIT
    assert read == [study.name]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"learning_rate": 5.0}, "learning_rate 5.0 is outside"),
        ({"learning_rate": "high"}, "learning_rate 'high' is outside"),
        ({"learning_rate": 0.1}, "temperature is left to the sampler"),
        ({"depth": 3}, "depth is not searched here"),
    ],
)
def test_odd_values_are_told(make_study: MakeStudy, params: dict[str, object], expected: str) -> None:
    study = make_study()
    study.optuna_study.enqueue_trial(params)
    (trial,) = enqueued_trials(study.trials())
    remark = remark_on(trial, study.config.hyperparameters)
    assert remark is not None
    assert expected in remark


def test_whole_configurations_within_the_ranges_are_not_remarked_on(make_study: MakeStudy) -> None:
    study = make_study()
    whole = {name: setting.middle for name, setting in study.config.hyperparameters.searched().items()}
    study.optuna_study.enqueue_trial(whole)
    (trial,) = enqueued_trials(study.trials())
    assert remark_on(trial, study.config.hyperparameters) is None
