"""Claims, fences, ends and the recovery of what the dead held, on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from igkd_hpo.errors import UsageError
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Verdict, Worker
from igkd_hpo.search.optuna_internals import models
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, ended_since, ended_trials, open_study

MakeStudy = Callable[..., SearchStudy]


def claimed(leases: Leases, worker: Worker) -> Claim:
    claim = leases.claim(worker)
    assert isinstance(claim, Claim), claim
    return claim


def test_a_trial_from_claim_to_complete(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    assert (claim.number, claim.attempt, claim.seed, claim.control) == (0, 1, 0, None)
    assert list(claim.hyperparameters) == list(type(study.config.hyperparameters).model_fields)
    assert leases.start(claim, this_process(), "cpu")
    assert leases.heartbeat(claim, last_epoch=1) is Verdict.GO_ON
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
    assert leases.annotate(claim, {"parameters": 543_498})
    (lease,) = leases.held()
    assert (lease.worker, lease.trial_process, lease.device, lease.beat, lease.last_epoch) == (
        "here", this_process(), "cpu", 1, 1)  # fmt: skip
    assert leases.complete(claim, 0.75, {"validation_loss": 0.25})
    (trial,) = study.trials()
    assert trial.state is TrialState.COMPLETE
    assert trial.value == 0.75
    assert trial.intermediate_values == {1: 0.5}
    searched = study.config.hyperparameters.searched()
    assert trial.params == {name: claim.hyperparameters[name] for name in searched}
    assert trial.user_attrs == {
        "hyperparameters": claim.hyperparameters, "seed": 0, "attempts": 1, "worker": "here",
        "host": worker.process.host, "device": "cpu", "parameters": 543_498, "validation_loss": 0.25,
        "ended_after": 0,
    }  # fmt: skip
    assert leases.held() == []


def test_orphans_come_first_then_those_that_wait_then_new_ones(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    held = claimed(leases, worker)  # 0, held all the time
    study.optuna_study.enqueue_trial({"alpha": 0.25})  # 1 waits
    orphan = study.storage.create_new_trial(study.study_id)  # 2 is RUNNING, of nobody, without parameters
    order = [claimed(leases, worker) for _ in range(3)]
    assert [claim.number for claim in order] == [2, 1, 3]
    assert order[0].trial_id == orphan
    assert order[1].hyperparameters["alpha"] == 0.25
    for trial in study.trials():
        assert set(trial.params) == set(study.config.hyperparameters.searched())
    assert {lease.trial_id for lease in leases.held()} == {held.trial_id, *(claim.trial_id for claim in order)}


def test_no_more_than_n_trials_are_ever_begun(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=2)
    leases = Leases(study)
    first, second = claimed(leases, worker), claimed(leases, worker)
    assert leases.claim(worker) is Idle.WAIT
    assert leases.prune(first, "slow", {})
    assert leases.claim(worker) is Idle.WAIT
    assert leases.fail(second, "broken", {})  # does not count, so that one more is needed
    third = claimed(leases, worker)
    assert third.number == 2
    assert leases.complete(third, 0.5, {})
    assert leases.claim(worker) is Idle.FINISHED
    counts = study.counts()
    assert (counts.complete, counts.pruned, counts.fail, counts.finished) == (1, 1, 1, 2)


def test_what_nobody_needs_any_more_ends_as_surplus(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=1)
    leases = Leases(study)
    last = claimed(leases, worker)
    study.storage.create_new_trial(study.study_id)
    study.optuna_study.enqueue_trial({"alpha": 0.5}, user_attrs={"control": "kd"})
    assert leases.complete(last, 0.5, {})
    assert leases.claim(worker) is Idle.FINISHED
    ended = study.trials()[1:]
    assert [trial.state for trial in ended] == [TrialState.FAIL] * 2
    assert {trial.user_attrs["reason"] for trial in ended} == {"surplus"}


def test_a_superseded_attempt_changes_nothing(
    make_study: MakeStudy, elsewhere: Callable[[str], Worker], worker: Worker
) -> None:
    study = make_study()
    leases = Leases(study)
    old = claimed(leases, elsewhere("lost"))
    assert leases.report(old, epoch=1, accuracy=0.1) is Verdict.GO_ON
    leases.drop_worker(elsewhere("lost"))
    new = claimed(leases, worker)
    assert (new.number, new.attempt, new.reported_epochs) == (old.number, 2, {1})
    assert new.hyperparameters == old.hyperparameters
    before, lease = study.trials()[0], leases.held()
    assert leases.report(old, epoch=2, accuracy=0.9) is Verdict.LOST
    assert not leases.annotate(old, {"parameters": 1})
    assert not leases.complete(old, 0.9, {})
    assert not leases.prune(old, "late", {})
    assert not leases.fail(old, "late", {})
    assert not leases.release(old, "late", counted=True, epochs_gained=False)
    assert not leases.start(old, this_process(), "cuda:7")
    assert leases.heartbeat(old, last_epoch=6) is Verdict.LOST
    with leases.holding(old) as held:
        assert not held
    assert study.trials()[0] == before
    assert leases.held() == lease
    assert study.read().attributes["late_results"] == 7
    with leases.holding(new) as held:
        assert held
    assert leases.complete(new, 0.5, {})


def test_a_call_whose_answer_got_lost_can_be_made_again(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    for end in (
        lambda claim: leases.complete(claim, 0.5, {}),
        lambda claim: leases.prune(claim, "slow", {}),
        lambda claim: leases.fail(claim, "broken", {}),
        lambda claim: leases.release(claim, "stopped", counted=True, epochs_gained=False),
    ):
        claim = claimed(leases, worker)
        assert end(claim)
        before = study.trials()
        assert end(claim)
        assert study.trials() == before
    assert study.read().attributes["late_results"] == 0
    claim = claimed(leases, worker)
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
    assert leases.report(claim, epoch=1, accuracy=0.9) is Verdict.GO_ON
    assert study.trials()[claim.number].intermediate_values == {1: 0.5}


def test_a_trial_that_was_ended_with_other_tools_is_lost_to_its_worker(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    study.optuna_study.tell(claim.number, 0.99)
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.LOST
    assert not leases.complete(claim, 0.5, {})
    assert study.trials()[0].value == 0.99
    assert leases.held() == []


def test_pruned_trials_have_their_last_accuracy(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    reported, silent = claimed(leases, worker), claimed(leases, worker)
    leases.report(reported, epoch=1, accuracy=0.4)
    leases.report(reported, epoch=2, accuracy=0.3)
    assert leases.prune(reported, "below the bar", {"validation_loss": 2.0})
    assert leases.prune(silent, "the loss was not finite in epoch 1", {})
    first, second = study.trials()
    assert (first.state, first.value, first.user_attrs["reason"]) == (TrialState.PRUNED, 0.3, "below the bar")
    assert (second.state, second.value, second.intermediate_values) == (TrialState.PRUNED, 0.0, {1: 0.0})


def test_attempts_that_get_nowhere_end_the_trial(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(max_retries=1)
    leases = Leases(study)

    def attempt(number: int, *, counted: bool = True, epochs_gained: bool = False) -> TrialState:
        claim = claimed(leases, worker)
        assert (claim.number, claim.attempt) == (0, number)
        assert leases.release(claim, "killed", counted=counted, epochs_gained=epochs_gained)
        state: TrialState = study.trials()[0].state
        return state

    assert attempt(1) is TrialState.WAITING
    assert attempt(2, counted=False) is TrialState.WAITING
    assert attempt(3, epochs_gained=True) is TrialState.WAITING
    assert attempt(4) is TrialState.WAITING
    assert attempt(5) is TrialState.FAIL
    reason = study.trials()[0].user_attrs["reason"]
    assert reason == "2 attempts in a row ended without one more finished epoch; the last: killed"


def test_a_completed_trial_keeps_no_reason_of_an_earlier_attempt(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    assert leases.release(claimed(leases, worker), "stopped by SIGINT", counted=False, epochs_gained=False)
    assert leases.complete(claimed(leases, worker), 0.5, {})
    assert study.trials()[0].user_attrs["reason"] is None


def test_the_study_stops_when_the_last_trials_all_failed(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(max_failures=2)
    leases = Leases(study)
    assert leases.fail(claimed(leases, worker), "CUDA is out of memory", {})
    assert leases.complete(claimed(leases, worker), 0.5, {})
    assert leases.fail(claimed(leases, worker), "CUDA is out of memory", {})
    assert leases.fail(claimed(leases, worker), "CUDA is out of memory", {})
    assert leases.claim(worker) is Idle.STOPPED
    assert study.read().stopped == "the last 2 trials all failed; trial 3: CUDA is out of memory"
    assert leases.claim(worker) is Idle.STOPPED
    again = Leases(make_study(max_failures=2))  # launched again: what failed before does not stop it at once
    assert claimed(again, worker).number == 4


def test_the_order_of_ends_is_not_that_of_the_hosts_clocks(
    make_study: MakeStudy, database_url: str, worker: Worker
) -> None:
    study = make_study(max_failures=2)
    leases = Leases(study)
    for _ in range(2):
        assert leases.fail(claimed(leases, worker), "broken", {})
    assert leases.claim(worker) is Idle.STOPPED
    with study.storage.engine.begin() as connection:  # by the clock of their host, which is ahead
        table = models.TrialModel.__table__
        connection.execute(table.update().values(datetime_complete=datetime.now(UTC) + timedelta(days=2)))
    make_study(max_failures=2)
    elsewhere = open_storage(database_url, create=False)
    leases = Leases(open_study(elsewhere, study.name))
    for _ in range(2):
        assert leases.complete(claimed(leases, worker), 0.5, {})
    assert leases.fail(claimed(leases, worker), "broken", {})
    assert leases.fail(claimed(leases, worker), "broken again", {})
    assert leases.claim(worker) is Idle.STOPPED
    assert [trial.number for trial in ended_trials(study.trials())] == [0, 1, 2, 3, 4, 5]
    elsewhere.engine.dispose()


def test_trials_that_earlier_versions_ended_are_forgiven_by_their_number() -> None:
    def ended(number: int, **attributes: int) -> FrozenTrial:
        trial = create_trial(state=TrialState.FAIL, user_attrs=attributes)
        trial.number, trial.datetime_complete = number, datetime(2026, 1, 1, second=number, tzinfo=UTC)
        return trial

    theirs, ours = [ended(0), ended(1), ended(2)], [ended(3, ended_after=4), ended(4, ended_after=3)]
    assert [trial.number for trial in ended_since([*ours, *theirs], 0)] == [0, 1, 2, 4, 3]
    for before, expected in ((2, [2, 4, 3]), (3, [4, 3]), (4, [3]), (5, [])):
        assert [trial.number for trial in ended_since([*ours, *theirs], before)] == expected


def test_stop_lets_running_trials_end(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    study.stop("stopped by ada")
    assert leases.claim(worker) is Idle.STOPPED
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
    assert leases.complete(claim, 0.5, {})


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"alpha": "much"}, "do not fit the study"),
        ({"alpha": float("nan")}, "do not fit the study"),
        ({"alpha": 10**400}, "do not fit the study"),
        ({"alpha": 1.5}, "alpha: Value error, 1.5 is out of range"),
        ({"width": 0.25}, "enqueued with width, which this study does not search"),
    ],
)
def test_unusable_enqueued_trials_fail_and_block_nobody(
    make_study: MakeStudy, worker: Worker, params: dict[str, object], expected: str
) -> None:
    study = make_study()
    study.optuna_study.enqueue_trial(params)
    assert claimed(Leases(study), worker).number == 1
    failed = study.trials()[0]
    assert failed.state is TrialState.FAIL
    assert expected in failed.user_attrs["reason"]


def test_controls_train_with_their_own_values_and_are_never_pruned(make_study: MakeStudy, worker: Worker) -> None:
    digits = make_study  # alpha's range below does not hold the controls' 0 and 0.9
    settings = {
        "temperature": 4.0, "alpha": {"type": "float", "low": 0.2, "high": 0.8}, "overlay_probability": 0.3,
        "overlay_strength": 0.5, "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
    }  # fmt: skip
    study = digits(hyperparameters=settings, controls=("student", "kd"), pruner={"name": "median", "grace_period": 0})
    leases = Leases(study)
    student, kd = claimed(leases, worker), claimed(leases, worker)
    assert (student.control, kd.control) == ("student", "kd")
    assert (student.hyperparameters["alpha"], student.hyperparameters["overlay_probability"]) == (0.0, 0.0)
    assert (kd.hyperparameters["alpha"], kd.hyperparameters["temperature"]) == (0.9, 4.0)
    assert kd.hyperparameters["learning_rate"] == pytest.approx(0.1)
    first, second = study.trials()
    assert (first.params["alpha"], second.params["alpha"]) == (0.2, 0.8)
    for accuracy in (0.6, 0.7, 0.8, 0.9):
        claim = claimed(leases, worker)
        for epoch in (1, 2, 3, 6):
            assert leases.report(claim, epoch=epoch, accuracy=accuracy) is Verdict.GO_ON
        assert leases.complete(claim, accuracy, {})
    study.storage.create_new_trial(
        study.study_id,
        optuna.trial.create_trial(
            value=0.9, intermediate_values=dict.fromkeys((1, 2, 3, 6), 0.9), params={}, distributions={}
        ),
    )
    assert leases.report(student, epoch=1, accuracy=0.1) is Verdict.GO_ON
    other = claimed(leases, worker)
    assert leases.report(other, epoch=1, accuracy=0.1) is Verdict.PRUNE
    assert leases.report(other, epoch=3, accuracy=0.1) is Verdict.PRUNE
    assert leases.why_pruned(other) == (
        "10.00 % by epoch 3, below the bar of 80.00 % (the best 50 % of 5 completed trials)"
    )
    assert leases.report(other, epoch=2, accuracy=0.1) is Verdict.GO_ON  # an old epoch, told again or late
    assert leases.report(other, epoch=6, accuracy=0.1) is Verdict.GO_ON  # the last


def test_a_deleted_study_is_named(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    optuna.delete_study(study_name=study.name, storage=study.storage)
    for call in (lambda: leases.claim(worker), lambda: leases.complete(claim, 0.5, {}), study.counts):
        with pytest.raises(UsageError, match="was it deleted or renamed"):
            call()


def test_a_study_that_was_deleted_is_not_the_next_one_that_has_its_id(make_study: MakeStudy, worker: Worker) -> None:
    old = make_study()
    leases = Leases(old)
    optuna.delete_study(study_name=old.name, storage=old.storage)
    new = make_study(name="next", max_retries=1, training=old.config.training.model_copy(update={"seed": 7}))
    with pytest.raises(UsageError, match="was it deleted or renamed"):
        leases.claim(worker)
    assert not any("attempts" in trial.user_attrs for trial in new.trials())


def test_leases_of_a_deleted_study_do_not_bind_the_next_one(make_study: MakeStudy, worker: Worker) -> None:
    old = make_study()
    claimed(Leases(old), worker)
    optuna.delete_study(study_name=old.name, storage=old.storage)
    new = make_study(n_trials=1)  # SQLite gives it the same ids
    assert Leases(new).held() == []
    assert claimed(Leases(new), worker).attempt == 1


def test_a_stopped_study_begins_nothing_and_lets_what_runs_go_on(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    study.stop("enough")
    assert leases.claim(worker) is Idle.STOPPED
    assert leases.heartbeat(claim, last_epoch=0) is Verdict.GO_ON
    assert leases.complete(claim, 0.5, {})
    assert study.read().stopped == "enough"


def test_stopped_now_is_told_with_the_next_beat_and_cleared_by_a_launch(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    study.stop("enough")
    study.stop("at once", now=True)
    assert study.read().stopped == "enough"
    assert leases.heartbeat(claim, last_epoch=0) is Verdict.STOP
    assert leases.release(claim, "the study was stopped", counted=False, epochs_gained=False)
    (trial,) = study.trials()
    assert (trial.state, trial.user_attrs["attempts_without_progress"]) == (TrialState.WAITING, 0)
    assert make_study().read().stopped is None
    again = claimed(leases, worker)
    assert (again.number, again.attempt) == (claim.number, 2)
    assert leases.heartbeat(again, last_epoch=0) is Verdict.GO_ON


def test_successive_halving_remembers_its_rungs_across_workers(make_study: MakeStudy, worker: Worker) -> None:
    # Optuna writes a rung's accuracy with the trial, inside the step that reports the epoch.
    study = make_study(pruner={"name": "successive_halving", "grace_period": 1, "reduction_factor": 2})
    one, other = Leases(study), Leases(open_study(study.storage, study.name))
    first, second, third = (claimed(leases, worker) for leases in (one, other, one))
    assert one.report(first, epoch=1, accuracy=0.8) is Verdict.GO_ON
    assert other.report(second, epoch=1, accuracy=0.5) is Verdict.PRUNE
    assert "not among the best 1 in 2 there" in other.why_pruned(second)
    assert one.report(third, epoch=1, accuracy=0.9) is Verdict.GO_ON
    assert one.report(third, epoch=2, accuracy=0.7) is Verdict.GO_ON  # the first there
    assert other.report(first, epoch=2, accuracy=0.6) is Verdict.PRUNE
