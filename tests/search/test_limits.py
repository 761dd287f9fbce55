"""What is beyond a limit is not trained, is told to the sampler, and takes nothing from the study's total."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.cost import StudentCost, architecture, excess, recorded_cost, why_infeasible
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.recipe import HYPERPARAMETERS
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.stopping import MOST_INFEASIBLE
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.trial.student import check_fit, measure_student

MakeStudy = Callable[..., SearchStudy]
COST = StudentCost(parameters=600, compression_factor=4.0, macs=50, size_kb=2.0, latency_ms=3.0)


def test_a_limit_itself_is_allowed_and_the_excess_is_a_fraction_of_it() -> None:
    limits = Limits(parameters=500, macs=100, latency_ms=3.0)
    assert excess(limits, COST) == {"parameters": 0.2, "macs": -0.5, "latency_ms": 0.0}
    assert why_infeasible(limits, COST) == "600 parameters where limits.parameters allows 500"
    assert why_infeasible(Limits(parameters=600), COST) is None
    both = why_infeasible(Limits(parameters=500, size_kb=1.5), COST)
    assert both is not None
    assert both.endswith(" and 2.0 KiB of weights where limits.size_kb allows 1.5")
    held = why_infeasible(Limits(peak_ram_kb=19), replace(COST, peak_ram_kb=19.5))
    assert held == "19.5 KiB of activations at once where limits.peak_ram_kb allows 19"


def test_a_student_too_large_by_its_counts_is_not_even_timed() -> None:
    def measured(limits: Limits) -> StudentCost:
        study = limited({}, **limits.model_dump())
        return measure_student(
            study,
            {"architecture": "mobilenet_v2", "layers_removed": 5, "width": 1.0},
            10,
            (32, 32),
            2_236_682,
            allow_import=frozenset(),
        )

    paper = measured(Limits(parameters=543_497))
    assert (paper.parameters, paper.size_kb, paper.compression_factor) == (543_498, 2123.0, 4.115)
    assert round(paper.macs / 1e6, 2) == 58.70
    assert paper.peak_ram_kb == 312  # 24, 144 and 144 channels of 32x32
    assert paper.latency_ms is None
    timed = measured(Limits(parameters=543_498))
    assert timed.latency_ms is not None
    assert timed.latency_ms_p95 is not None
    assert 0 < timed.latency_ms <= timed.latency_ms_p95
    assert "1 CPU thread" in str(timed.latency_of)
    assert recorded_cost(timed.as_attributes()) == timed.as_attributes()


def test_a_cost_is_known_again_by_all_that_shapes_the_network_and_by_nothing_else() -> None:
    values = {name: name for name in HYPERPARAMETERS}
    for name, known in HYPERPARAMETERS.items():
        other = architecture(values | {name: "other"})
        assert (other != architecture(values)) == (known.role is Role.ARCHITECTURE or name == "sparsity"), name


def reject(leases: Leases, claim: Claim, over: float) -> None:
    assert leases.annotate(claim, {}, excess={"parameters": over})
    assert leases.prune(claim, "not trained: too large", {})


def test_what_is_not_trained_does_not_count_and_has_no_accuracy(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=2, max_failures=2)
    leases = Leases(study)
    ends: list[TrialState] = []
    for end in ("beyond", "fail", "beyond", "complete", "prune"):
        claim = leases.claim(worker)
        assert isinstance(claim, Claim), end
        if end == "beyond":
            reject(leases, claim, 0.5)
        elif end == "fail":
            assert leases.fail(claim, "broken", {})
        else:
            assert leases.annotate(claim, {}, excess={"parameters": -0.5})
            assert leases.complete(claim, 0.5, {}) if end == "complete" else leases.prune(claim, "slow", {})
    assert leases.claim(worker) is Idle.FINISHED
    counts = study.counts()
    assert (counts.complete, counts.pruned, counts.infeasible, counts.fail, counts.finished) == (1, 1, 2, 1, 2)
    ends = [trial.state for trial in study.trials()]
    assert ends == [TrialState.PRUNED, TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE, TrialState.PRUNED]
    assert [is_infeasible(trial) for trial in study.trials()] == [True, False, True, False, False]
    beyond = study.trials()[0]
    assert beyond.value is None
    assert beyond.intermediate_values == {}
    assert study.optuna_study.best_trial.number == 3


def test_untrained_trials_between_failures_do_not_hide_them(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(max_failures=2)
    leases = Leases(study)
    for failing in (True, False, True):
        claim = leases.claim(worker)
        assert isinstance(claim, Claim)
        if failing:
            assert leases.fail(claim, "broken", {})
        else:
            reject(leases, claim, 1.0)
    assert leases.claim(worker) is Idle.STOPPED
    assert "broken" in str(study.read().stopped)


def test_the_sampler_learns_what_fits(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=30)
    leases = Leases(study)
    fitted = []
    while isinstance(claim := leases.claim(worker), Claim):
        alpha = float(claim.hyperparameters["alpha"])
        fitted.append(alpha <= 0.2)
        if alpha > 0.2:
            reject(leases, claim, (alpha - 0.2) / 0.2)
        else:
            assert leases.complete(claim, 0.5, {})
        if len(fitted) == 30:
            break
    # One in five fits by chance.
    assert sum(fitted[:10]) <= 5
    assert sum(fitted[15:]) >= 9


def test_a_study_in_which_nothing_fits_ends(
    make_study: MakeStudy, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igkd_hpo.search.stopping.MOST_INFEASIBLE", 3)
    study = make_study()
    leases = Leases(study)
    for _ in range(3):
        claim = leases.claim(worker)
        assert isinstance(claim, Claim)
        reject(leases, claim, 2.0)
    assert leases.claim(worker) is Idle.STOPPED
    assert "the last 3 configurations were all beyond the limits" in str(study.read().stopped)
    assert "too large" in str(study.read().stopped)
    assert MOST_INFEASIBLE > 3


def limited(hyperparameters: dict[str, object], **limits: object) -> Study:
    digits = read_study(builtin_studies()["digits"]).model_dump()
    return Study.model_validate(
        digits | {"hyperparameters": digits["hyperparameters"] | hyperparameters, "limits": limits}
    )


def test_whether_anything_fits_is_told_by_the_smallest_student() -> None:
    sizes = {"layers_removed": {"type": "int", "low": 3, "high": 17}, "width": 1.0}

    def fit(limit: int) -> tuple[bool, bool]:
        found = check_fit(limited(sizes, parameters=limit), num_classes=10, image_size=(8, 8), allow_import=frozenset())
        return found.smallest is None, found.controls is None

    assert fit(1_993) == (False, False)
    assert fit(1_994) == (True, False)
    assert fit(131_466) == (True, True)  # the middle, 10 blocks removed
    assert fit(131_465) == (True, False)
    nothing = check_fit(limited(sizes), num_classes=10, image_size=(8, 8), allow_import=frozenset())
    assert (nothing.smallest, nothing.controls) == (None, None)
