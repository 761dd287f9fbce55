"""Optuna's samplers under several workers: nothing twice, nothing left out, limits kept; on both databases."""

from collections.abc import Callable

import pytest

from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, open_study

MakeStudy = Callable[..., SearchStudy]
SPACE = {
    "alpha": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "temperature": {"type": "int", "low": 1, "high": 4},
    "overlay_probability": 0.1,
    "overlay_strength": 0.5,
    "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
    "objective": {"type": "categorical", "choices": ("kd", "dist")},
}
SAMPLERS = {
    "tpe": {"name": "tpe", "n_startup_trials": 4, "n_ei_candidates": 8, "multivariate": False, "constant_liar": False},
    "gp": {"name": "gp", "n_startup_trials": 6, "deterministic_objective": True},
    "sobol": {"name": "qmc", "scramble": True},
    "halton": {"name": "qmc", "qmc_type": "halton"},
    "random": {"name": "random"},
}


def values(claim: Claim) -> tuple[object, ...]:
    return tuple(claim.hyperparameters[name] for name in SPACE)


def run_by_two(study: SearchStudy, worker: Worker, url: str) -> list[Claim]:
    """Run the study by two workers with connections of their own, each of which holds a trial at any time."""
    elsewhere = open_study(open_storage(url, create=False), study.name)
    sides = [Leases(study), Leases(elsewhere)]
    held: list[tuple[Leases, Claim]] = []
    claims = []
    while True:
        for leases in sides:
            if isinstance(claim := leases.claim(worker), Claim):
                held.append((leases, claim))
                claims.append(claim)
        if not held:
            break
        for leases, claim in held[::-1]:
            assert leases.complete(claim, 1 - abs(float(claim.hyperparameters["alpha"]) - 0.5), {})
        held = []
    elsewhere.storage.engine.dispose()
    return claims


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_every_sampler_fills_a_study(
    make_study: MakeStudy, study_file: object, database_url: str, worker: Worker, sampler: dict[str, object]
) -> None:
    settings = make_study(name="other").config.model_dump()["hyperparameters"] | SPACE
    study = make_study(n_trials=8, sampler=sampler, hyperparameters=settings)
    claims = run_by_two(study, worker, database_url)
    assert len(claims) == study.counts().complete == 8
    assert len({values(claim) for claim in claims}) == 8
    for claim in claims:
        assert claim.hyperparameters["alpha"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert claim.hyperparameters["objective"] in ("kd", "dist")
    if "qmc" in sampler.values():  # one sequence for all: its first 8 points halve each range evenly, but for the start
        later = [float(claim.hyperparameters["learning_rate"]) for claim in claims[2:]]
        assert 2 <= sum(rate < 0.1 for rate in later) <= 4


@pytest.mark.parametrize("controls", [(), ("student", "kd")])
def test_a_grid_is_run_once_from_end_to_end(
    make_study: MakeStudy, database_url: str, worker: Worker, controls: tuple[str, ...]
) -> None:
    grid = SPACE | {"learning_rate": 0.1, "temperature": 2.0}
    settings = make_study(name="other").config.model_dump()["hyperparameters"] | grid
    study = make_study(
        n_trials=10 + len(controls), sampler={"name": "grid"}, hyperparameters=settings, controls=controls
    )
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    assert leases.release(claim, "stopped", counted=False, epochs_gained=False)
    claims = run_by_two(study, worker, database_url)[len(controls) :]
    assert len(claims) == 10
    assert {values(claim) for claim in claims} == {
        (alpha / 4, 2.0, 0.1, 0.5, 0.1, objective) for alpha in range(5) for objective in ("kd", "dist")
    }


def test_a_gaussian_process_comes_back_from_beyond_a_limit(make_study: MakeStudy, worker: Worker) -> None:
    settings = make_study(name="other").config.model_dump()["hyperparameters"] | SPACE
    study = make_study(
        n_trials=5,
        sampler={"name": "gp", "n_startup_trials": 2},
        hyperparameters=settings,
        limits={"parameters": 1_000_000},
    )
    leases, beyond = Leases(study), 0
    while isinstance(claim := leases.claim(worker), Claim):
        alpha = float(claim.hyperparameters["alpha"])
        if alpha >= 0.5:  # where the values promise most
            beyond += 1
            assert leases.annotate(claim, {}, excess={"parameters": alpha})
            assert leases.prune(claim, "too large", {})
        else:
            assert leases.complete(claim, alpha, {})
    assert claim is Idle.FINISHED
    assert beyond < 12
