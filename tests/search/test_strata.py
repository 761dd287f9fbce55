"""Strata of a study that several workers run: whose turn it is, and what a resumed trial keeps; on both databases."""

from collections.abc import Callable
from typing import Any

from igkd_hpo.config.strata import Strata
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.study import SearchStudy

MakeStudy = Callable[..., SearchStudy]
ENDS = (200.0, 500.0, 1000.0)
STRATA = Strata(of="parameters", at=ENDS)
SIZES = {
    "temperature": 4.0, "overlay_probability": 0.1, "overlay_strength": 0.5,
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
    "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
    "width": {"type": "float", "low": 0.1, "high": 1.0},
}  # fmt: skip


def make_sized(make_study: MakeStudy, **changes: Any) -> SearchStudy:
    return make_study(strata=STRATA, hyperparameters=SIZES, **changes)


def parameters_of(claim: Claim) -> int:
    return round(1000 * float(claim.hyperparameters["width"]))


def measure(leases: Leases, claim: Claim) -> bool:
    """Record the size of a claimed trial; end it and return False where it is beyond its stratum."""
    size = parameters_of(claim)
    over = {} if claim.stratum is None else {"stratum": claim.stratum.excess(size)}
    assert leases.annotate(claim, {"parameters": size}, excess=over)
    if (why := claim.stratum and claim.stratum.why_beyond(size)) is None:
        return True
    assert leases.prune(claim, f"not trained: {why}", {})
    return False


def claimed(leases: Leases, worker: Worker) -> Claim:
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    return claim


def fitting(leases: Leases, worker: Worker) -> Claim:
    """Claim trials until one is within its stratum."""
    while not measure(leases, claim := claimed(leases, worker)):
        pass
    return claim


def test_trials_are_drawn_for_strata_in_turn_until_one_fits(make_study: MakeStudy, worker: Worker) -> None:
    study = make_sized(make_study, n_trials=9, controls=("student",))
    leases = Leases(study)
    control = claimed(leases, worker)
    assert control.stratum is None
    assert leases.complete(control, 0.5, {"parameters": 900})
    study.optuna_study.enqueue_trial({"width": 0.9})
    by_hand = claimed(leases, worker)
    assert by_hand.stratum is None
    assert leases.complete(by_hand, 0.5, {"parameters": 900})
    ends = []
    while isinstance(claim := leases.claim(worker), Claim):
        assert claim.stratum is not None
        ends.append(claim.stratum.end)
        if measure(leases, claim):
            assert leases.complete(claim, 0.5, {})
    assert claim is Idle.FINISHED
    trained = [trial for trial in study.trials() if "stratum" in trial.user_attrs and not is_infeasible(trial)]
    assert [trial.user_attrs["stratum"] for trial in trained] == [*ENDS, *ENDS, ENDS[0]]
    assert len(ends) > len(trained), "a width in five fits into the first"
    assert study.counts().infeasible == len(ends) - len(trained)


def test_a_trial_that_goes_on_keeps_its_stratum_and_its_values(make_study: MakeStudy, worker: Worker) -> None:
    study = make_sized(make_study)
    leases = Leases(study)
    first, second = claimed(leases, worker), claimed(leases, worker)
    assert (first.stratum, second.stratum) == STRATA.each[:2]
    assert leases.release(second, "stopped", counted=False, epochs_gained=False)
    again = claimed(leases, worker)
    assert (again.number, again.stratum) == (second.number, second.stratum)
    assert again.hyperparameters == second.hyperparameters
